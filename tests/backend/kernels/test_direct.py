"""Direct contractions against the references: odd sizes, strides, groups, pads, epilogues, every target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.printer import print_kernel
from cnnc.backend.lower import Program
from cnnc.backend.target import TARGETS, Target
from cnnc.errors import ShapeError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Value
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops import OPS
from cnnc.ops.conv import Conv2d, Conv2dInputGrad
from cnnc.ops.dense import Dense, DenseInputGrad
from cnnc.ops.elementwise import Add, Bias, Map, Relu, Tanh
from cnnc.ops.fused import Fused
from cnnc.ops.pool import MaxPool2d, MeanPool2d
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.pipeline import compile_graph
from tests.kernel_sites import check_graph, check_sample
from tests.native_kernels import on_runnable_targets, run_natively
from tests.nets import draw

NAMES = ("conv2d", "conv2d_input_grad", "dense", "dense_input_grad")
SAMPLES = [(f"{name}-{i}", sample) for name in NAMES for i, sample in enumerate(OPS[name].samples())]
SIZES = (1, 7, 9, 17, 33)
vector_targets = st.sampled_from([TARGETS[name] for name in ("x86-64", "avx2", "avx512")])


@on_runnable_targets
@pytest.mark.parametrize("sample", [s for _, s in SAMPLES], ids=[name for name, _ in SAMPLES])
def test_samples_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@st.composite
def convolutions(draw: st.DrawFn, sizes: tuple[int, ...] = (1, 2, 5, 7), widest: int = 20) -> Sample:
    """A convolution with asymmetric pads, or its input gradient."""
    pair, pad = st.tuples(*[st.integers(1, 3)] * 2), st.tuples(*[st.integers(0, 3)] * 4)
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    inner, maps = (draw(st.integers(1, max(1, widest // groups))) for _ in range(2))
    extent = st.sampled_from(sizes)
    x = f32(draw(st.integers(1, 3)), inner * groups, draw(extent), draw(extent))
    w = f32(maps * groups, inner, *draw(pair))
    op = Conv2d(draw(pair), draw(pad), draw(pair), groups)
    try:
        (y,) = op.infer(x, w)
    except ShapeError:
        assume(False)
    if draw(st.booleans()):
        return Sample(op, (x, w))
    *_, height, width = x.shape
    return Sample(Conv2dInputGrad(op.stride, op.pad, op.dilation, groups, (height, width)), (y, w))


@given(sample=convolutions(), target=vector_targets)
@settings(max_examples=60, deadline=None)
def test_convolutions_interpreted(sample: Sample, target: Target) -> None:
    check_sample(sample, target, reversed)


@on_runnable_targets
@given(sample=convolutions(SIZES, 70))
@settings(max_examples=15, deadline=None)
def test_convolutions_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@on_runnable_targets
@pytest.mark.parametrize("size", SIZES)
def test_odd_sizes_in_every_extent(size: int, target: Target) -> None:
    """Maps, channels and pixels that are no multiple of a vector or a register tile; batches 1 to 7."""
    other = SIZES[(SIZES.index(size) + 2) % len(SIZES)]
    run = run_natively(target)
    for batch, kernel in ((1, 3), (7, 2)):
        pad = (kernel // 2, kernel - 1, kernel - 1, kernel // 2)
        conv, w = Conv2d(pad=pad), f32(size, other, kernel, kernel)
        x = f32(batch, other, min(size, 9), size)
        (y,) = conv.infer(x, w)
        check_sample(Sample(conv, (x, w)), target, run=run)
        *_, height, width = x.shape
        check_sample(Sample(Conv2dInputGrad(pad=pad, size=(height, width)), (y, w)), target, run=run)


@on_runnable_targets
@given(
    rows=st.integers(1, 40),
    channels=st.sampled_from((*SIZES, 120)),
    maps=st.sampled_from((*SIZES, 120)),
    spatial=st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_dense_products_compiled(target: Target, rows: int, channels: int, maps: int, spatial: bool) -> None:
    inner = (channels, 2, 3) if spatial else (channels,)
    x, w, run = f32(rows, *inner), f32(maps, *inner), run_natively(target)
    check_sample(Sample(Dense(), (x, w)), target, run=run)
    check_sample(Sample(DenseInputGrad(), (f32(rows, maps), w)), target, run=run)


def fused(graph: Graph, target: Target, nodes: int = 1) -> Program:
    """Check the graph's compiled kernels; there must be as many fused ones."""
    feeds = {**draw(graph.inputs, 1), **draw(graph.params, 2)}
    passes = (FuseEpilogues(),)
    program = check_graph(graph, passes, target, feeds, run=run_natively(target))
    regions = [call for call in program.calls if call.node and isinstance(call.node.op, Fused)]
    assert len(regions) == nodes
    return program


def biased(b: GraphBuilder, y: Value) -> Value:
    return b.emit(Bias(), y, b.param(b.fresh("bias"), f32(y.type.shape[1])))


@on_runnable_targets
@pytest.mark.parametrize("maps", [1, 3, 21])
@pytest.mark.parametrize(("kernel", "pad"), [(1, 0), (3, 1), (3, 0)])
@pytest.mark.parametrize("pool", [None, MaxPool2d((2, 2), (2, 2)), MeanPool2d((3, 2), (3, 2))], ids=str)
def test_epilogues(
    maps: int, kernel: int, pad: int, pool: MaxPool2d | MeanPool2d | None, target: Target
) -> None:
    """Bias, shortcut, activation and pool in registers; extents no multiple of the pool's window."""
    b = GraphBuilder("net")
    x, w = b.input("x", f32(2, 3, 7, 9)), b.param("w", f32(maps, 3, kernel, kernel))
    y = biased(b, b.emit(Conv2d(pad=(pad,) * 4), x, w))
    y = b.emit(Tanh(), b.emit(Add(), y, b.input("shortcut", y.type)))
    fused(b.build([b.emit(pool, y) if pool else y]), target)


@on_runnable_targets
@pytest.mark.parametrize("maps", [2, 4, 6, 8])
@pytest.mark.parametrize("pad", [0, 2])
@pytest.mark.parametrize("pool", [MaxPool2d((2, 2), (2, 2)), MeanPool2d((4, 2), (4, 2))], ids=str)
def test_rows_of_few_maps_share_registers(
    maps: int, pad: int, pool: MaxPool2d | MeanPool2d, target: Target
) -> None:
    """Where vectors are half as wide as registers or less; taps at the border reach one of two rows."""
    b = GraphBuilder("net")
    x, w = b.input("x", f32(2, 2, 8, 10)), b.param("w", f32(maps, 2, 5, 5))
    y = b.emit(Conv2d(pad=(pad,) * 4), x, w)
    y = b.emit(Tanh(), b.emit(Bias(), y, b.param("bias", f32(maps))))
    graph = b.build([b.emit(pool, b.emit(Add(), y, b.input("shortcut", y.type)))])
    feeds = {**draw(graph.inputs, 1), **draw(graph.params, 2)}
    program = check_graph(graph, (FuseEpilogues(),), target, feeds, run=run_natively(target))
    (call,) = (call for call in program.calls if call.node and isinstance(call.node.op, Fused))
    shares = target.lanes // 2 >= 1 << (maps - 1).bit_length()
    assert ("join" in print_kernel(call.kernel)) == shares


@on_runnable_targets
def test_a_dense_product_with_its_epilogue(target: Target) -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(5, 3, 2, 2)), b.param("w", f32(17, 3, 2, 2))
    y = biased(b, b.emit(Dense(), x, w))
    scaled = b.emit(Map("a * b + c"), y, b.input("shortcut", y.type), b.input("scale", f32()))
    fused(b.build([b.emit(Relu(), scaled)]), target)


@on_runnable_targets
def test_input_gradients_take_epilogues(target: Target) -> None:
    b = GraphBuilder("net")
    dy, w = b.input("dy", f32(2, 7, 5, 5)), b.param("w", f32(7, 9, 3, 3))
    dx = b.emit(Conv2dInputGrad(pad=(1, 1, 1, 1), size=(5, 5)), dy, w)
    fused(b.build([b.emit(Map("select(0.0 < b, a, 0.0)"), dx, b.input("y", dx.type))]), target)
    b = GraphBuilder("dense")
    dy, w = b.input("dy", f32(3, 10)), b.param("w", f32(10, 4, 3, 3))
    dx = b.emit(DenseInputGrad(), dy, w)
    fused(b.build([b.emit(Map("a * b"), dx, b.input("y", dx.type))]), target)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_large_layers_are_proven_and_shared_out(target: Target) -> None:
    """Bounds and conflicts of layers of real networks, and work for many threads."""
    for x, w, pad in (
        (f32(1, 64, 56, 56), f32(64, 64, 3, 3), 1),
        (f32(1, 256, 56, 56), f32(64, 256, 1, 1), 0),
        (f32(1, 512, 7, 7), f32(512, 512, 3, 3), 1),
        (f32(64, 1, 32, 32), f32(6, 1, 5, 5), 0),
    ):
        b = GraphBuilder("net")
        op = Conv2d(pad=(pad,) * 4)
        y = b.emit(Relu(), b.emit(op, b.input("x", x), b.param("w", w)))
        program = compile_graph(b.build([y]), (FuseEpilogues(),), target).program
        (region,) = [c for c in program.calls if c.node and isinstance(c.node.op, Fused)]
        assert region.proof.accesses > 0 and region.proof.conflicts > 0


STEPS = (
    # channels, maps, size, kernel, stride, pad, dilation
    (9, 17, (9, 7), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    (17, 33, (9, 7), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    (3, 9, (17, 19), (7, 7), (2, 2), (3, 3, 3, 3), (1, 1)),
    (7, 1, (12, 9), (3, 4), (3, 2), (1, 2, 0, 1), (1, 1)),
    (5, 3, (17, 17), (11, 11), (4, 4), (2, 2, 2, 2), (1, 1)),
    (9, 7, (17, 13), (3, 3), (2, 3), (2, 4, 4, 2), (3, 2)),
    (9, 7, (17, 13), (3, 2), (2, 2), (3, 0, 2, 4), (2, 4)),
    (9, 17, (3, 2), (5, 3), (1, 1), (9, 9, 9, 9), (4, 5)),
    (16, 24, (3, 7), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (24, 8, (2, 4), (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
)
"""Strided and dilated windows, and rows so narrow that a tile holds several."""


@on_runnable_targets
@pytest.mark.parametrize("case", STEPS, ids=str)
def test_strides_and_dilations_both_ways(case: tuple[Any, ...], target: Target) -> None:
    channels, maps, size, kernel, stride, pad, dilation = case
    conv, run = Conv2d(stride, pad, dilation), run_natively(target)
    x, w = f32(2, channels, *size), f32(maps, channels, *kernel)
    (y,) = conv.infer(x, w)
    check_sample(Sample(conv, (x, w)), target, run=run)
    check_sample(Sample(Conv2dInputGrad(stride, pad, dilation, size=size), (y, w)), target, run=run)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nothing_is_padded_or_spread_for_a_convolution(target: Target) -> None:
    """Each convolution and input gradient is one kernel, besides the copies of inputs and outputs."""
    for channels, maps, size, kernel, stride, pad, dilation in STEPS:
        b, conv = GraphBuilder("net"), Conv2d(stride, pad, dilation)
        x, w = b.input("x", f32(1, channels, *size)), b.param("w", f32(maps, channels, *kernel))
        y = b.emit(conv, x, w)
        dx = b.emit(Conv2dInputGrad(stride, pad, dilation, size=size), y, w)
        calls = compile_graph(b.build([dx]), (), target).program.calls
        names = [call.node.op.name for call in calls if call.node and call.node.op.name != "relayout"]
        assert names == ["conv2d", "conv2d_input_grad"]


@on_runnable_targets
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_a_transposed_convolution_takes_an_epilogue_but_no_pool(kernel: int, target: Target) -> None:
    """Also where no tap reaches: there the epilogue is applied to zeros."""
    b = GraphBuilder("net")
    x, w = b.input("x", f32(2, 9, 4, 3)), b.param("w", f32(9, 17, kernel, kernel))
    size = (6 + kernel, 4 + kernel)
    y = biased(b, b.emit(Conv2dInputGrad((2, 2), size=size), x, w))
    y = b.emit(Relu(), b.emit(Add(), y, b.input("shortcut", y.type)))
    fused(b.build([y]), target)
    even = b.emit(Conv2dInputGrad((2, 2), size=(8, 6)), x, b.param("v", f32(9, 17, 2, 2)))
    fused(b.build([b.emit(MaxPool2d((2, 2), (2, 2)), even)]), target, nodes=1)


def test_single_precision_sums_stay_within_the_tolerance() -> None:
    """Long reductions: 4608 products per element."""
    target = TARGETS["avx2"]
    rng = np.random.default_rng(0)
    b = GraphBuilder("net")
    x, w = b.input("x", f32(1, 512, 3, 3)), b.param("w", f32(8, 512, 3, 3))
    feeds = {v.name: rng.standard_normal(v.type.shape).astype(np.float32) for v in (x, w)}
    check_graph(b.build([b.emit(Conv2d(), x, w)]), (), target, feeds)
