"""Pooling kernels: windows that overlap, leave gaps, stick out; epilogues; who gets equal maxima."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.ir import Access
from cnnc.backend.kernel.nest import parallel_nest
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.target import TARGETS
from cnnc.errors import UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Value
from cnnc.ir.op import Op, Sample
from cnnc.ir.types import f32
from cnnc.ops.elementwise import Bias, Map, Relu
from cnnc.ops.fused import Fused
from cnnc.ops.pool import MaxPool2d, MaxPool2dGrad, MeanPool2d, MeanPool2dGrad
from cnnc.ops.samples import LinkedSample
from tests.kernel_sites import check_site, run_site, site_of

AVX2 = TARGETS["avx2"]
PAIR = st.tuples(st.integers(1, 5), st.integers(1, 5))
PADS = st.tuples(*[st.integers(0, 2)] * 4)
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def fitted(kernel: Pair, pad: Pads, size: Pair) -> tuple[Pads, Pair]:
    """Padding that is smaller than the window, and a size in which the window fits."""
    top, left, bottom, right = (min(p, k - 1) for p, k in zip(pad, kernel * 2, strict=True))
    height, width = max(size[0], kernel[0] - top - bottom), max(size[1], kernel[1] - left - right)
    return (top, left, bottom, right), (height, width)


@given(kernel=PAIR, stride=PAIR, pad=PADS, size=PAIR, channels=st.sampled_from((1, 3, 9)))
@settings(max_examples=60, deadline=None)
def test_any_window(
    kernel: Pair,
    stride: Pair,
    pad: Pads,
    size: Pair,
    channels: int,
) -> None:
    pad, size = fitted(kernel, pad, size)
    x, pool = f32(2, channels, *size), MaxPool2d(kernel, stride, pad)
    (y,) = pool.infer(x)
    for sample in (
        Sample(pool, (x,)),
        Sample(MeanPool2d(kernel, stride, pad), (x,)),
        LinkedSample(MaxPool2dGrad(kernel, stride, pad), (y, x, y), links=((2, pool, (1,)),)),
        Sample(MeanPool2dGrad(kernel, stride, pad, size=size), (y,)),
    ):
        check_site(site_of(sample, AVX2), sample, reversed)


@given(kernel=PAIR, stride=PAIR, sides=st.tuples(*[PADS] * 2), size=PAIR)
@settings(max_examples=40, deadline=None)
def test_any_padding_that_does_not_count(
    kernel: Pair,
    stride: Pair,
    sides: tuple[Pads, Pads],
    size: Pair,
) -> None:
    pad, size = fitted(kernel, sides[0], size)
    top, left, bottom, right = map(min, zip(pad, sides[1], strict=True))
    uncounted = (top, left, bottom, right)
    x, pool = f32(1, 9, *size), MeanPool2d(kernel, stride, pad, uncounted)
    (y,) = pool.infer(x)
    for op, operand in ((pool, x), (MeanPool2dGrad(kernel, stride, pool.pad, uncounted, size=size), y)):
        sample = Sample(op, (operand,))
        check_site(site_of(sample, AVX2), sample, reversed)


@pytest.mark.parametrize("channels", [7, 64, 72])
@pytest.mark.parametrize("target", ["x86-64", "avx2", "avx512"])
def test_means_of_whole_maps(channels: int, target: str) -> None:
    for op, x in (
        (MeanPool2d((9, 5), (9, 5)), f32(2, channels, 9, 5)),
        (MaxPool2d((9, 5), (9, 5)), f32(2, channels, 9, 5)),
        (MeanPool2dGrad((9, 5), (9, 5), size=(9, 5)), f32(2, channels, 1, 1)),
    ):
        sample = Sample(op, (x,))
        kernel = check_site(site_of(sample, TARGETS[target]), sample, reversed)
        assert len(parallel_nest(kernel)[0]) >= 2


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    [((2, 2), (2, 2), (0, 0, 0, 0)), ((3, 3), (2, 1), (1, 1, 1, 1)), ((1, 2), (3, 3), (0, 0, 0, 0))],
)
@pytest.mark.parametrize("target", ["x86-64", "avx512"])
def test_epilogues(
    kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int, int, int], target: str
) -> None:
    x = f32(2, 7, 6, 8)
    (y,) = MaxPool2d(kernel, stride, pad).infer(x)
    for pool in (MaxPool2d(kernel, stride, pad), MeanPool2d(kernel, stride, pad)):
        body = GraphBuilder("pool_relu")
        image, bias = body.input("x", x), body.input("b", f32(7))
        pooled = body.emit(pool, image)
        check_region(body, [pooled, body.emit(Relu(), body.emit(Bias(), pooled, bias))], target)
    for op, operands in (
        (MaxPool2dGrad(kernel, stride, pad), (y, x, y)),
        (MeanPool2dGrad(kernel, stride, pad, size=(6, 8)), (y,)),
    ):
        body = GraphBuilder("grad_mask")
        spread = body.emit(op, *(body.input(f"x{i}", t) for i, t in enumerate(operands)))
        masked = body.emit(Map("a * (1.0 - b * b) + c"), spread, body.input("t", x), body.input("s", f32()))
        pooled = ((2, MaxPool2d(kernel, stride, pad), (1,)),) if len(operands) == 3 else ()
        check_region(body, [masked], target, pooled)


def check_region(
    body: GraphBuilder,
    results: list[Value],
    target: str,
    links: tuple[tuple[int, Op, tuple[int, ...]], ...] = (),
) -> None:
    graph = body.build(results)
    sample = LinkedSample(Fused(graph), tuple(value.type for value in graph.inputs), links=links)
    check_site(site_of(sample, TARGETS[target]), sample, reversed)


@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (1, 0, 1, 0)])
def test_the_first_of_equal_maxima_gets_the_gradient(pad: tuple[int, int, int, int]) -> None:
    op = MaxPool2dGrad((2, 2), (2, 2), pad)
    x = np.zeros((1, 1, 4, 4), np.float32)
    (y,) = MaxPool2d((2, 2), (2, 2), pad).reference(x)
    dy = np.arange(1, y.size + 1, dtype=np.float32).reshape(y.shape)
    sample = Sample(op, (f32(*y.shape), f32(*x.shape), f32(*y.shape)))
    site = site_of(sample, AVX2)
    (found,) = run_site(kernel_for(site), site, (dy, x, y))
    np.testing.assert_array_equal(found, op.reference(dy, x, y)[0])


@pytest.mark.parametrize("size", [(4, 4), (2, 2)])
def test_windows_that_cover_the_map_once_are_only_written(size: tuple[int, int]) -> None:
    op: Op = MeanPool2dGrad((2, 2), (2, 2), (0, 0, 0, 0), size=size)
    kernel = kernel_for(site_of(Sample(op, (f32(1, 3, size[0] // 2, size[1] // 2),)), AVX2))
    assert kernel.buffer("r0").access is Access.WRITE


def test_row_major_maps_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="channels-last"):
        kernel_for(site_of(Sample(MaxPool2d((2, 2), (2, 2)), (f32(1, 3, 4, 4),)), AVX2, ("abcd", "abcd")))
