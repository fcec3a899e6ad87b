"""Relayout between every kind of layouts, reshape, padding, cropping, spreading, constants."""

from __future__ import annotations

import pytest

from cnnc.backend.kernel.ir import For
from cnnc.backend.kernel.printer import print_kernel
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.target import TARGETS
from cnnc.errors import UnsupportedError
from cnnc.ir.op import Op, Sample
from cnnc.ir.types import TensorType, f32
from cnnc.ops.shape import Constant, Crop2d, Dilate2d, Flatten, Pad2d, Relayout, Reshape
from tests.kernel_sites import check_site, site_of

AVX2 = TARGETS["avx2"]
TAGS = ("abcd", "acdb", "bcda", "Acdb16a", "Acdb32a", "Bcda16b", "Bacd8b", "aBcd16b")


@pytest.mark.parametrize("source", TAGS)
@pytest.mark.parametrize("target", TAGS)
def test_relayout(source: str, target: str) -> None:
    for shape in ((19, 18, 2, 3), (3, 33, 1, 1)):
        sample = Sample(Relayout(source, target), (f32(*shape),))
        check_site(site_of(sample, AVX2), sample, reversed)


@pytest.mark.parametrize(("source", "target"), [("ab", "ba"), ("ab", "Ab16a"), ("Ab8a", "Ba16b"), ("", "")])
@pytest.mark.parametrize("machine", ["x86-64", "avx512"])
def test_relayout_of_other_ranks(source: str, target: str, machine: str) -> None:
    shape = (37, 21)[: len(source.strip("0123456789")) and 2]
    sample = Sample(Relayout(source, target), (f32(*shape),))
    check_site(site_of(sample, TARGETS[machine]), sample, reversed)


def test_vectors_are_copied_where_the_fastest_axis_is_the_same() -> None:
    kernel = kernel_for(site_of(Sample(Relayout("bcda", "Acdb16a"), (f32(32, 4, 3, 3),)), AVX2))
    assert "store x8" in print_kernel(kernel) and "store x1" not in print_kernel(kernel)
    assert isinstance(kernel.body[0], For) and kernel.body[0].parallel


@pytest.mark.parametrize(
    ("op", "x", "tags"),
    [
        (Flatten(), f32(3, 5, 2, 4), ("acdb", "ab")),
        (Flatten(), f32(3, 5, 2, 4), ("abcd", "ab")),
        (Reshape((3, 5, 2, 4)), f32(3, 40), ("ab", "acdb")),
        (Reshape((6, 20)), f32(3, 40), ("ab", "ab")),
        (Flatten(), f32(3, 5, 1, 1), ("acdb", "ab")),
        (Reshape((1,)), f32(), ("", "a")),
    ],
)
def test_reshape(op: Op, x: TensorType, tags: tuple[str, str]) -> None:
    sample = Sample(op, (x,))
    check_site(site_of(sample, AVX2, tags), sample, reversed)


def test_a_reshape_between_two_other_orders_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="one must be row-major"):
        kernel_for(site_of(Sample(Reshape((5, 3, 2, 4)), (f32(3, 5, 2, 4),)), AVX2, ("acdb", "acdb")))


@pytest.mark.parametrize("tag", ["acdb", "abcd"])
@pytest.mark.parametrize(
    "op", [Pad2d((1, 2, 0, 3)), Crop2d((1, 0, 2, 1)), Dilate2d((2, 3)), Dilate2d((1, 1))]
)
def test_maps(op: Op, tag: str) -> None:
    sample = Sample(op, (f32(2, 5, 4, 6),))
    check_site(site_of(sample, AVX2, (tag, tag)), sample, reversed)


def test_maps_in_other_layouts_are_refused() -> None:
    sample = Sample(Pad2d((1, 1, 1, 1)), (f32(2, 5, 4, 6),))
    with pytest.raises(UnsupportedError, match="not Acdb8a"):
        kernel_for(site_of(sample, AVX2, ("Acdb8a", "acdb")))
    with pytest.raises(UnsupportedError, match="from abcd to acdb"):
        kernel_for(site_of(sample, AVX2, ("abcd", "acdb")))


@pytest.mark.parametrize("tag", ["ab", "Ab8a"])
def test_constants(tag: str) -> None:
    for value in ((0.5,), (0.0,), tuple(float(i // 7) for i in range(30))):
        sample = Sample(Constant(value, (10, 3)), ())
        check_site(site_of(sample, AVX2, (tag,)), sample)
