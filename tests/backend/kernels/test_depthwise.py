"""Depthwise convolutions and both gradients against the references: tails, strides, dilations, epilogues."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.nest import iterations
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.target import TARGETS, Target
from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph
from cnnc.ir.op import Op, Sample
from cnnc.ir.types import TensorType, f32
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.elementwise import Add, Bias, Map, Relu
from cnnc.ops.fused import Fused
from cnnc.ops.partial import PartialWeightGrad
from cnnc.ops.pool import MaxPool2d, MeanPool2d
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.pipeline import compile_graph
from tests.kernel_sites import check_graph, check_sample, site_of
from tests.native_kernels import on_runnable_targets, run_natively
from tests.nets import draw

NO_CACHE = 64
"""Bytes of a second-level cache so small that all maps come from memory."""

vector_targets = st.sampled_from([TARGETS[name] for name in ("x86-64", "avx2", "avx512")])


def depthwise_samples(conv: Conv2d, x: TensorType, kernel: tuple[int, int]) -> list[Sample]:
    """The convolution, its input gradient, its weight gradient and that of each image."""
    w = f32(conv.groups, 1, *kernel)
    (y,) = conv.infer(x, w)
    common, (*_, height, width) = (conv.stride, conv.pad, conv.dilation, conv.groups), x.shape
    return [
        Sample(conv, (x, w)),
        Sample(Conv2dInputGrad(*common, size=(height, width)), (y, w)),
        Sample(Conv2dWeightGrad(*common, kernel=kernel), (y, x)),
        Sample(PartialWeightGrad(*common, kernel=kernel, parts=x.shape[0]), (y, x)),
    ]


@st.composite
def geometries(draw: st.DrawFn, most: int) -> list[Sample]:
    pair, pad = st.tuples(*[st.integers(1, 3)] * 2), st.tuples(*[st.integers(0, 4)] * 4)
    channels, size = draw(st.integers(2, most)), st.sampled_from((1, 2, 5, 7, 12))
    conv = Conv2d(draw(pair), draw(pad), draw(pair), channels)
    x = f32(draw(st.integers(1, 3)), channels, draw(size), draw(size))
    try:
        return depthwise_samples(conv, x, draw(st.tuples(*[st.integers(1, 5)] * 2)))
    except ShapeError:
        assume(False)
        raise


@given(samples=geometries(20), target=vector_targets, from_memory=st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_geometry_interpreted(samples: list[Sample], target: Target, from_memory: bool) -> None:
    machine = replace(target, l2_bytes=NO_CACHE) if from_memory else target
    for sample in samples:
        check_sample(sample, machine, reversed)


@on_runnable_targets
@given(samples=geometries(70), from_memory=st.booleans())
@settings(max_examples=10, deadline=None)
def test_any_geometry_compiled(samples: list[Sample], from_memory: bool, target: Target) -> None:
    machine = replace(target, l2_bytes=NO_CACHE) if from_memory else target
    for sample in samples:
        check_sample(sample, machine, run=run_natively(machine))


@on_runnable_targets
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("channels", [7, 16, 33])
def test_the_usual_layers(channels: int, kernel: int, stride: int, target: Target) -> None:
    """Rows of several tiles, and several parts of rows."""
    conv = Conv2d((stride, stride), (kernel // 2,) * 4, groups=channels)
    for sample in depthwise_samples(conv, f32(2, channels, 33, 57), (kernel, kernel)):
        check_sample(sample, target, run=run_natively(target))


def checked(graph: Graph, target: Target) -> list[Op]:
    """The ops of the graph's calls, after checking their compiled kernels."""
    feeds = {**draw(graph.inputs, 1), **draw(graph.params, 2)}
    program = check_graph(graph, (FuseEpilogues(),), target, feeds, run=run_natively(target))
    return [call.node.op for call in program.calls if call.node and call.node.op.name != "relayout"]


@on_runnable_targets
@pytest.mark.parametrize("channels", [3, 24])
@pytest.mark.parametrize("pool", [None, MaxPool2d((2, 2), (2, 2)), MeanPool2d((3, 2), (3, 2))], ids=str)
def test_epilogues(channels: int, pool: MaxPool2d | MeanPool2d | None, target: Target) -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(2, channels, 12, 18)), b.param("w", f32(channels, 1, 3, 3))
    y = b.emit(Conv2d(pad=(1, 1, 1, 1), groups=channels), x, w)
    y = b.emit(Bias(), y, b.param("bias", f32(channels)))
    y = b.emit(Relu(), b.emit(Add(), y, b.input("shortcut", y.type)))
    (op,) = checked(b.build([b.emit(pool, y) if pool else y]), target)
    assert isinstance(op, Fused)


@on_runnable_targets
def test_a_strided_input_gradient_takes_an_epilogue(target: Target) -> None:
    b, groups = GraphBuilder("net"), 17
    dy, w = b.input("dy", f32(1, groups, 5, 4)), b.param("w", f32(groups, 1, 3, 3))
    dx = b.emit(Conv2dInputGrad((2, 2), (1, 1, 1, 1), (1, 1), groups, (10, 7)), dy, w)
    (op,) = checked(b.build([b.emit(Map("select(0.0 < b, a, 0.0)"), dx, b.input("y", dx.type))]), target)
    assert isinstance(op, Fused)


@on_runnable_targets
@pytest.mark.parametrize("channels", [7, 40])
def test_a_weight_gradient_takes_an_update(channels: int, target: Target) -> None:
    b, w = GraphBuilder("net"), f32(channels, 1, 3, 3)
    x, dy = b.input("x", f32(2, channels, 9, 7)), b.input("dy", f32(2, channels, 9, 7))
    dw = b.emit(Conv2dWeightGrad(pad=(1, 1, 1, 1), groups=channels, kernel=(3, 3)), dy, x)
    step = b.emit(Map("b - c * a"), dw, b.input("w", w), b.input("rate", f32()))
    (op,) = checked(b.build([step]), target)
    assert isinstance(op, Fused)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_large_layer_is_shared_out(target: Target) -> None:
    """Many iterations whose numbers of rows and channels are no literals of one machine."""
    b = GraphBuilder("net")
    x, w = b.input("x", f32(1, 96, 112, 112)), b.param("w", f32(96, 1, 3, 3))
    graph = b.build([b.emit(Conv2d((2, 2), (0, 0, 1, 1), groups=96), x, w)])
    calls = compile_graph(graph, (), target).program.calls
    (call,) = [c for c in calls if c.node and c.node.op.name == "conv2d"]
    assert call.proof.conflicts == 3
    assert iterations(call.kernel) >= 8


@pytest.mark.parametrize("number", [0, 2])
def test_other_layouts_are_refused(number: int) -> None:
    sample = depthwise_samples(Conv2d(groups=8), f32(1, 8, 7, 7), (3, 3))[number]
    with pytest.raises(UnsupportedError, match="acdb"):
        kernel_for(site_of(sample, TARGETS["avx2"], ("acdb", "abcd", "abcd")))
