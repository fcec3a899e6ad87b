"""Kernels shared between programs, and who hears of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.site import Site, Tensor
from cnnc.backend.lower import lower
from cnnc.backend.proven import ProvenKernels
from cnnc.backend.target import TARGETS
from cnnc.errors import UnsupportedError, VerifyError
from cnnc.ir.layout import row_major
from cnnc.ir.location import Location
from cnnc.ir.op import Op
from cnnc.ir.types import f32
from cnnc.ops.elementwise import Map, Relu
from cnnc.ops.optimizer import SGD
from cnnc.ops.shape import Constant
from cnnc.pipeline import compile_graph, inference_passes, training_passes
from tests.nets import tiny_lenet

AVX2 = TARGETS["avx2"]


def site(op: Op, shape: Sequence[int] = (3, 5), images: int = 0, exact: bool = False) -> Site:
    tensor = Tensor(f32(*shape), row_major(len(shape)))
    return Site(op, (tensor,), (tensor,), AVX2, images=images, exact_images=exact)


def test_equal_sites_share_a_kernel_that_is_heard_of_once() -> None:
    heard: list[Kernel] = []
    proven = ProvenKernels(heard.append)
    first, proof = proven.of(site(Relu()))
    assert proven.of(site(Relu())) == (first, proof)
    assert proven.of(site(Relu()))[0] is first == kernel_for(site(Relu()))
    assert proven.of(site(Relu(), (4, 5)))[0] != first
    assert heard == [first, proven.of(site(Relu(), (4, 5)))[0]]


def test_other_sites_share_a_kernel_that_comes_out_equal() -> None:
    heard: list[Kernel] = []
    proven = ProvenKernels(heard.append)
    one, other = site(Map("max(a, 0.0)"), (3, 5)), site(Map("max(a, 0.0)"), (5, 3))
    assert proven.of(one)[0] is proven.of(other)[0]
    assert len(heard) == 1


def test_the_number_of_images_decides_too() -> None:
    proven = ProvenKernels()
    fixed, free = (proven.of(site(Relu(), images=images), (True, True))[0] for images in (0, 3))
    assert fixed.image_loop is None and free.image_loop is not None


def test_what_images_are_kept_apart_for_is_proven_for_each_site() -> None:
    proven = ProvenKernels()
    proven.of(site(Relu()), (False, False))
    with pytest.raises(VerifyError, match="no loop over single images"):
        proven.of(site(Relu(), images=0, exact=True), (True, True))


def test_an_op_without_a_kernel_is_reported_at_its_line_and_heard_of_by_nobody() -> None:
    heard: list[Kernel] = []
    tensor = Tensor(f32(3), row_major(1))
    with pytest.raises(UnsupportedError, match=r"net.py:12: .*constant of i32"):
        ProvenKernels(heard.append).of(
            Site(Constant((1,), (3,), "i32"), (), (tensor,), AVX2), loc=Location("net.py", 12)
        )
    assert not heard


def test_programs_share_what_they_have_in_common() -> None:
    heard: list[Kernel] = []
    proven = ProvenKernels(heard.append)
    step = compile_graph(tiny_lenet(), training_passes(2, SGD()), AVX2, proven=proven)
    assert heard == list(step.program.kernels)
    passes = inference_passes(2)
    evaluate = compile_graph(tiny_lenet(), passes, AVX2, step.plan, proven=proven).program
    assert set(evaluate.kernels) & set(step.program.kernels)
    assert set(heard) == {*step.program.kernels, *evaluate.kernels} and len(set(heard)) == len(heard)
    assert evaluate.kernels == lower(evaluate.plan, AVX2).kernels, "as if alone"
