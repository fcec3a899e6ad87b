"""Kernels that make their operand as they read it, against the reference of the region."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.printer import print_kernel
from cnnc.backend.lower import Program
from cnnc.backend.target import TARGETS, Target
from cnnc.errors import UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Value
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType, f32
from cnnc.ops.concat import Concat
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.dense import Dense
from cnnc.ops.elementwise import Add, Bias, Map, Mul, Relu
from cnnc.ops.fused import Fused
from cnnc.ops.partial import PartialStrassenWeightGrad, PartialWeightGrad, PartialWinogradWeightGrad
from cnnc.ops.pool import MaxPool2d
from cnnc.ops.reduce import Sum
from cnnc.ops.strassen import StrassenConv2d, StrassenWeightGrad, StrassenWeights
from cnnc.ops.winograd import InlineWinogradConv2d, WinogradConv2d, WinogradWeightGrad, WinogradWeights
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.passes.fuse_prologues import FusePrologues
from tests.kernel_sites import check_graph
from tests.native_kernels import on_runnable_targets, run_natively
from tests.nets import draw

SIZES = (1, 7, 9, 17, 33)
PAD = (1, 1, 1, 1)
EXTENTS = {name: st.sampled_from(SIZES) for name in ("channels", "maps", "height", "width")}

HALVED = {
    **EXTENTS,
    "channels": st.sampled_from([2, 14, 34, 66]),
    "maps": st.sampled_from([2, 14, 32, 96]),
}
"""Of what Strassen's method cuts into halves."""


def normalized(b: GraphBuilder, x: Value) -> Value:
    channels = f32(x.type.shape[1])
    scale, shift = b.param(b.fresh("scale"), channels), b.param(b.fresh("shift"), channels)
    return b.emit(Relu(), b.emit(Map("a * b + c"), x, scale, shift))


def check(graph: Graph, target: Target, made: int = 1) -> Program:
    """Check the graph's compiled kernels, of which as many have a prologue."""
    feeds = {**draw(graph.inputs, 1), **draw(graph.params, 2)}
    program = check_graph(graph, (FuseEpilogues(), FusePrologues()), target, feeds, run=run_natively(target))
    ops = (call.node.op for call in program.calls if call.node)
    assert sum(isinstance(op, Fused) and bool(op.prologue) for op in ops) == made
    return program


def made_by(op: Conv2d | WinogradConv2d, x: TensorType, w: TensorType) -> Graph:
    b = GraphBuilder("net")
    weights = b.param("w", w)
    if type(op) is WinogradConv2d:
        weights = b.emit(WinogradWeights(op.tile), weights)
    return b.build([b.emit(op, normalized(b, b.input("x", x)), weights)])


def gradient(op: Op, channels: int, maps: int, size: tuple[int, int]) -> Graph:
    """A weight gradient of two images, of which the source is made."""
    b = GraphBuilder("net")
    x, dy = b.input("x", f32(2, channels, *size)), b.input("dy", f32(2, maps, *size))
    return b.build([b.emit(op, dy, normalized(b, x))])


@on_runnable_targets
@given(
    images=st.sampled_from([2, 3]),
    channels=st.sampled_from(SIZES),
    maps=st.sampled_from((*SIZES, 120)),
    height=st.sampled_from([8, 9, 17]),
    width=st.sampled_from(SIZES),
)
@settings(max_examples=10, deadline=None)
def test_convolutions_of_one_tap(
    images: int, channels: int, maps: int, height: int, width: int, target: Target
) -> None:
    check(made_by(Conv2d(), f32(images, channels, height, width), f32(maps, channels, 1, 1)), target)


@on_runnable_targets
@given(
    **EXTENTS,
    tile=st.sampled_from([(2, 2), (4, 4)]),
    inline=st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_winograds_convolutions(
    channels: int, maps: int, height: int, width: int, tile: tuple[int, int], inline: bool, target: Target
) -> None:
    """What is padded is zero, not what would be made of zero."""
    op = (InlineWinogradConv2d if inline else WinogradConv2d)(tile, (3, 3), PAD)
    check(made_by(op, f32(2, channels, height, width), f32(maps, channels, 3, 3)), target)


@on_runnable_targets
@given(
    **HALVED,
    l2_bytes=st.sampled_from([16 * 1024, 512 * 1024]),
)
@settings(max_examples=8, deadline=None)
def test_strassens_convolutions(
    channels: int, maps: int, height: int, width: int, l2_bytes: int, target: Target
) -> None:
    b = GraphBuilder("net")
    u = b.emit(StrassenWeights(), b.param("w", f32(maps, channels, 1, 1)))
    y = b.emit(StrassenConv2d(), normalized(b, b.input("x", f32(2, channels, height, width))), u)
    check(b.build([y]), replace(target, l2_bytes=l2_bytes))


@on_runnable_targets
@given(
    **EXTENTS,
    op=st.sampled_from(
        [
            Conv2dWeightGrad(),
            PartialWeightGrad(parts=2),
            WinogradWeightGrad((2, 2), (3, 3), PAD),
            PartialWinogradWeightGrad((4, 4), (3, 3), PAD, parts=2),
        ]
    ),
)
@settings(max_examples=12, deadline=None)
def test_weight_gradients(
    channels: int,
    maps: int,
    height: int,
    width: int,
    op: Conv2dWeightGrad | WinogradWeightGrad,
    target: Target,
) -> None:
    check(gradient(op, channels, maps, (height, width)), target)


@on_runnable_targets
@given(
    **HALVED,
    op=st.sampled_from([StrassenWeightGrad(), PartialStrassenWeightGrad(parts=2)]),
    l2_bytes=st.sampled_from([16 * 1024, 512 * 1024]),
)
@settings(max_examples=8, deadline=None)
def test_strassens_weight_gradients(
    channels: int, maps: int, height: int, width: int, op: StrassenWeightGrad, l2_bytes: int, target: Target
) -> None:
    check(gradient(op, channels, maps, (height, width)), replace(target, l2_bytes=l2_bytes))


@on_runnable_targets
@pytest.mark.parametrize("scale", [3, 40])
def test_many_chunks_of_a_weight_gradient(scale: int, target: Target) -> None:
    check(gradient(Conv2dWeightGrad(), 33, 20, (8 * scale, 9)), target)


@on_runnable_targets
def test_channels_inside_wider_maps(target: Target) -> None:
    """A layer of a dense block: its source are the first channels of what is joined later."""
    b = GraphBuilder("net")
    x, dy = b.input("x", f32(2, 24, 9, 8)), b.input("dy", f32(2, 16, 9, 8))
    first = b.emit(Conv2d(), x, b.param("u", f32(24, 24, 1, 1)))
    normal = b.emit(Relu(), b.emit(Mul(), first, b.emit(Sum((0, 2, 3)), first)))  # no epilogue: it needs all
    new = b.emit(Conv2d(), normal, b.param("w", f32(16, 24, 1, 1)))
    joined = b.emit(Concat(1), first, new)
    last = b.emit(InlineWinogradConv2d((2, 2), (3, 3), PAD), joined, b.param("v", f32(8, 40, 3, 3)))
    gradient = b.emit(Conv2dWeightGrad(), dy, normal)
    check(b.build([last, gradient]), target, made=2)


@on_runnable_targets
def test_an_epilogue_and_a_pool_behind_it(target: Target) -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(2, 17, 8, 6)), b.param("w", f32(33, 17, 1, 1))
    y = b.emit(Bias(), b.emit(Conv2d(), normalized(b, x), w), b.param("bias", f32(33)))
    check(b.build([b.emit(MaxPool2d((2, 2), (2, 2)), b.emit(Relu(), y))]), target)


@on_runnable_targets
def test_its_source_as_a_shortcut(target: Target) -> None:
    """The epilogue reads the same array as the prologue."""
    b = GraphBuilder("net")
    x, w = b.input("x", f32(2, 17, 8, 7)), b.param("w", f32(17, 17, 1, 1))
    check(b.build([b.emit(Add(), b.emit(Conv2d(), normalized(b, x), w), x)]), target)


def test_rows_are_made_once_for_all_maps() -> None:
    """And fit beside the weights in the second-level cache."""
    target = TARGETS["avx2"]
    graph = made_by(Conv2d(), f32(4, 256, 28, 28), f32(256, 256, 1, 1))
    program = check_graph(
        graph,
        (FuseEpilogues(), FusePrologues()),
        target,
        {**draw(graph.inputs, 1), **draw(graph.params, 2)},
        run=run_natively(target),
    )
    (kernel,) = (c.kernel for c in program.calls if c.node and isinstance(c.node.op, Fused))
    (made,) = (buffer for buffer in kernel.buffers if buffer.name == "made")
    assert made.nbytes <= target.l2_bytes // 2
    text = print_kernel(kernel)
    assert text.count("store made") < text.count("fma")


@pytest.mark.parametrize(
    ("op", "x", "w"),
    [
        (Conv2d(stride=(2, 2)), f32(2, 4, 9, 8), f32(8, 4, 1, 1)),
        (Conv2d(pad=PAD), f32(2, 4, 9, 8), f32(8, 4, 3, 3)),
        (Conv2d(groups=4), f32(2, 4, 9, 8), f32(4, 1, 1, 1)),
        (Conv2dInputGrad(size=(9, 8)), f32(2, 4, 9, 8), f32(4, 8, 1, 1)),
        (Dense(), f32(16, 4), f32(8, 4)),
    ],
    ids=["strided", "3x3", "depthwise", "input gradient", "dense"],
)
def test_kernels_that_take_none_say_so(
    op: Conv2d | Conv2dInputGrad | Dense, x: TensorType, w: TensorType
) -> None:
    """A graph that was written by hand may ask for one."""
    b = GraphBuilder("made")
    source, weights = b.input("x", x), b.input("w", w)
    body = b.build([b.emit(op, b.emit(Relu(), source), weights)])
    with pytest.raises(UnsupportedError, match=f"{op.name} cannot make its operand"):
        check_hand_written(body)


def test_weights_are_not_made() -> None:
    b = GraphBuilder("made")
    x, w = b.input("x", f32(2, 4, 9, 8)), b.input("w", f32(8, 4, 1, 1))
    body = b.build([b.emit(Conv2d(), b.emit(Relu(), x), b.emit(Relu(), w))])
    with pytest.raises(UnsupportedError, match="conv2d cannot make its operand"):
        check_hand_written(body)


def test_a_prologue_of_several_maps_is_refused() -> None:
    b = GraphBuilder("made")
    x, w = b.input("x", f32(2, 4, 9, 8)), b.input("w", f32(8, 4, 1, 1))
    other = b.input("other", x.type)
    body = b.build([b.emit(Conv2d(), b.emit(Mul(), x, other), w)])
    with pytest.raises(UnsupportedError, match=r"conv2d: its prologue reads f32\[2,4,9,8\] besides"):
        check_hand_written(body)


def check_hand_written(body: Graph) -> None:
    b = GraphBuilder("net")
    operands = [b.input(f"x{i}", value.type) for i, value in enumerate(body.inputs)]
    graph = b.build([b.emit(Fused(body), *operands)])
    feeds = draw(graph.inputs, 1)
    check_graph(graph, (), TARGETS["avx2"], feeds)
