"""Maps that no cache holds: what is read ahead changes no result, and small maps are not read ahead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from cnnc.backend.kernel.ir import For, Prefetch, Statement
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernel.nest import iterations
from cnnc.backend.kernels.fetch import WAYS, apart
from cnnc.backend.lower import Program
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.op import Op, Sample
from cnnc.ir.types import f32
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.elementwise import Map
from cnnc.ops.fused import Fused
from cnnc.ops.pool import MaxPool2d, MaxPool2dGrad
from cnnc.ops.samples import LinkedSample
from cnnc.ops.winograd import WinogradConv2d, convolution_sample
from tests.kernel_sites import check_sample
from tests.native_kernels import on_runnable_targets, run_natively

SMALL_CACHE = 4096


def test_rows_apart_begin_in_every_set_of_a_cache() -> None:
    for elements in (1, 16, 17, 32, 1008, 1024, 4096):
        pitch = apart(elements)
        assert elements <= pitch < elements + 2 * LINE and pitch % LINE == 0
        assert len({row * pitch // LINE % 64 for row in range(64)}) == 64


def masked_gradient(images: int, maps: int, channels: int, height: int, width: int) -> Fused:
    """A pointwise input gradient and a mask, an operand of its epilogue."""
    body = GraphBuilder("fused")
    dy, w = body.input("dy", f32(images, maps, height, width)), body.input("w", f32(maps, channels, 1, 1))
    z = body.input("z", f32(images, channels, height, width))
    dx = body.emit(Conv2dInputGrad(size=(height, width)), dy, w)
    return Fused(body.build([body.emit(Map("select(0.0 < b, a, 0.0)"), dx, z)]))


def fused_sample(op: Fused) -> Sample:
    return Sample(op, tuple(value.type for value in op.body.inputs))


def pool_gradient(kernel: tuple[int, int]) -> Sample:
    pool, x = MaxPool2d(kernel, (1, 1), SAMES), f32(2, 17, 9, 7)
    (y,) = pool.infer(x)
    return LinkedSample(MaxPool2dGrad(kernel, (1, 1), SAMES), (y, x, y), links=((2, pool, (1,)),))


SAMES = (1, 1, 1, 1)
SAMPLES = (
    Sample(Conv2d(), (f32(2, 33, 9, 7), f32(17, 33, 1, 1))),
    Sample(Conv2d(), (f32(3, 48, 17, 7), f32(33, 48, 1, 1))),
    Sample(Conv2dInputGrad(size=(9, 7)), (f32(2, 17, 9, 7), f32(17, 33, 1, 1))),
    Sample(Conv2dWeightGrad(kernel=(1, 1)), (f32(2, 33, 17, 9), f32(2, 17, 17, 9))),
    Sample(Conv2d(pad=SAMES, groups=33), (f32(2, 33, 9, 7), f32(33, 1, 3, 3))),
    Sample(Conv2d((2, 2), SAMES, groups=17), (f32(2, 17, 9, 17), f32(17, 1, 3, 3))),
    Sample(Conv2dInputGrad((2, 2), SAMES, groups=17, size=(9, 17)), (f32(2, 17, 5, 9), f32(17, 1, 3, 3))),
    Sample(Conv2dWeightGrad((2, 2), SAMES, groups=33, kernel=(3, 3)), (f32(2, 33, 5, 9), f32(2, 33, 9, 17))),
    pool_gradient((3, 3)),
    pool_gradient((5, 5)),
    convolution_sample(WinogradConv2d((4, 4), (3, 3), SAMES), f32(2, 17, 17, 9), f32(33, 17, 3, 3)),
    fused_sample(masked_gradient(2, 9, 33, 9, 7)),
    fused_sample(masked_gradient(2, 65, 33, 9, 7)),
    fused_sample(masked_gradient(1, 129, 17, 7, 33)),
)


NAMES = [f"{i}-{s.op.name}" for i, s in enumerate(SAMPLES)]


def is_read_ahead(program: Program, op: Op) -> bool:
    """Whether the kernel of an op fetches or asks for lines."""
    (kernel,) = [c.kernel for c in program.calls if c.node is not None and c.node.op == op]
    return any(b.name == "unread" for b in kernel.buffers) or _prefetches(kernel.body)


def _prefetches(body: tuple[Statement, ...]) -> bool:
    return any(isinstance(s, Prefetch) or (isinstance(s, For) and _prefetches(s.body)) for s in body)


@on_runnable_targets
@pytest.mark.parametrize("sample", SAMPLES, ids=NAMES)
def test_large_maps_are_read_ahead_and_results_stay(sample: Sample, target: Target) -> None:
    small = replace(target, l2_bytes=SMALL_CACHE)
    assert is_read_ahead(check_sample(sample, small, run=run_natively(small)), sample.op)


@pytest.mark.parametrize("sample", SAMPLES, ids=NAMES)
def test_maps_in_the_cache_are_not_read_ahead(sample: Sample) -> None:
    program = check_sample(sample, TARGETS["avx2"])
    bands = isinstance(sample.op, MaxPool2dGrad) and sample.op.kernel == (5, 5)  # fetched wherever they are
    assert is_read_ahead(program, sample.op) == bands


@pytest.mark.parametrize(("channels", "is_spread"), [(63, False), (64, True), (129, True)])
def test_operands_of_an_epilogue_are_asked_for_along_many_channels(channels: int, is_spread: bool) -> None:
    op = masked_gradient(1, channels, 17, 9, 7)
    program = check_sample(fused_sample(op), replace(TARGETS["avx512"], l2_bytes=SMALL_CACHE))
    (kernel,) = [c.kernel for c in program.calls if c.node is not None and c.node.op == op]
    asking = {loop for loop, buffer in _prefetched("", kernel.body) if buffer == "p2"}
    assert {loop.startswith("line") for loop in asking} == {is_spread}


def _prefetched(loop: str, body: tuple[Statement, ...]) -> Iterator[tuple[str, str]]:
    """The innermost loop around each question, and the buffer asked for."""
    for statement in body:
        if isinstance(statement, Prefetch):
            yield loop, statement.buffer
        elif isinstance(statement, For):
            yield from _prefetched(statement.variable, statement.body)


@on_runnable_targets
def test_operands_of_an_epilogue_are_fetched_for_all_blocks_of_maps(target: Target) -> None:
    """Then blocks of maps are no part of the parallel nest."""
    op, machine = masked_gradient(16, 9, 129, 17, 7), replace(target, l2_bytes=256 * 1024)
    program = check_sample(fused_sample(op), machine, run=run_natively(machine))
    (kernel,) = [c.kernel for c in program.calls if c.node is not None and c.node.op == op]
    assert next(b for b in kernel.buffers if b.name == "unread").shape == (WAYS,)
    assert iterations(kernel) % 16 == 0
