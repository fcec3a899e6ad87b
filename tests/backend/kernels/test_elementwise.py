"""Elementwise kernels: layouts, channel and scalar operands, in place, regions, several chunks."""

from __future__ import annotations

import pytest

from cnnc.backend.kernel.interpreter import Order
from cnnc.backend.kernel.printer import print_kernel
from cnnc.backend.kernels.loops import CHUNK
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.target import TARGETS
from cnnc.errors import UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops.elementwise import Add, Bias, Map, Relu
from cnnc.ops.fused import Fused
from tests.kernel_sites import check_site, site_of

AVX2 = TARGETS["avx2"]


@pytest.mark.parametrize(
    ("shape", "tag"),
    [
        ((2, 5, 3, 7), "acdb"),
        ((2, 17, 3, 2), "acdb"),
        ((2, 5, 3, 7), "abcd"),
        ((3, 5, 1, 1), "abcd"),
        ((3, 21), "ab"),
        ((9, 21), "ba"),
        ((17, 3, 2, 2), "Acdb16a"),
    ],
)
@pytest.mark.parametrize("order", [iter, reversed])
def test_channels_in_any_place(shape: tuple[int, ...], tag: str, order: Order) -> None:
    sample = Sample(Map("a * b + c * d"), (f32(*shape), f32(shape[1]), f32(*shape), f32()))
    check_site(site_of(sample, AVX2, (tag, "a", tag, "", tag)), sample, order)


@pytest.mark.parametrize("tag", ["Acdb16a", "Bcda8b", "dcba"])
def test_blocks_are_flat_memory(tag: str) -> None:
    sample = Sample(Map("a * c + b"), (f32(19, 11, 2, 3), f32(19, 11, 2, 3), f32()))
    check_site(site_of(sample, AVX2, (tag, tag, "", tag), {0: 1}), sample)


@pytest.mark.parametrize(
    "size", [1, 7, 8, 31, CHUNK, CHUNK + 1, CHUNK + 37, 2 * CHUNK - 8, 2 * CHUNK, 2 * CHUNK + 77]
)
@pytest.mark.parametrize("target", ["x86-64", "avx512"])
def test_chunks_cover_everything_once(size: int, target: str) -> None:
    sample = Sample(Map("a * 2.0 + b"), (f32(size), f32(size)))
    check_site(site_of(sample, TARGETS[target], in_place={0: 0}), sample, reversed)


def test_axes_of_length_one_may_stand_anywhere() -> None:
    sample = Sample(Add(), (f32(3, 7, 1, 1), f32(3, 7, 1, 1)))
    check_site(site_of(sample, AVX2, ("abcd", "acdb", "abcd")), sample)


def test_mixed_orders_are_refused() -> None:
    sample = Sample(Add(), (f32(3, 7, 2, 1), f32(3, 7, 2, 1)))
    with pytest.raises(UnsupportedError, match="acdb and abcd in one kernel"):
        kernel_for(site_of(sample, AVX2, ("abcd", "acdb", "abcd")))


def test_scalars_in_place() -> None:
    sample = Sample(Map("a * b"), (f32(), f32()))
    check_site(site_of(sample, AVX2, in_place={0: 0}), sample)


@pytest.mark.parametrize("tag", ["acdb", "abcd"])
def test_a_region_with_two_results_in_place(tag: str) -> None:
    body = GraphBuilder("update")
    p, m = body.input("p", f32(2, 5, 3, 4)), body.input("m", f32(2, 5, 3, 4))
    b, lr = body.input("b", f32(5)), body.input("lr", f32())
    moved = body.emit(Map("a * 0.9 + b"), m, body.emit(Bias(), p, b))
    step = body.emit(Map("a - c * b"), body.emit(Relu(), p), moved, lr)
    sample = Sample(Fused(body.build([step, moved])), (p.type, m.type, b.type, lr.type))
    check_site(site_of(sample, AVX2, (tag, tag, "a", "", tag, tag), {0: 0, 1: 1}), sample, reversed)


def test_what_scalars_decide_is_computed_once() -> None:
    op = Map("a - b * sqrt(1.0 - c) / (1.0 - d) * a")
    sample = Sample(op, (f32(9000), f32(), f32(), f32()), ((-1, 1), (-1, 1), (0, 0.5), (0, 0.5)))
    kernel = check_site(site_of(sample, AVX2, in_place={0: 0}), sample)
    text = print_kernel(kernel)
    assert text.count("sqrt") == text.count("div") == 1
    assert text.index("div") < text.index("for i in")
