"""Weight gradients with the optimizer's step behind them: one kernel, which writes over what it updates."""

from __future__ import annotations

import pytest

from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.lower import site_of_node
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType, f32
from cnnc.ops.conv import Conv2d, Conv2dWeightGrad
from cnnc.ops.dense import DenseWeightGrad
from cnnc.ops.elementwise import Map
from cnnc.ops.fused import Fused
from cnnc.ops.partial import PartialWeightGrad, SumParts
from cnnc.ops.winograd import WinogradWeightGrad
from cnnc.passes.fuse_epilogues import FuseEpilogues
from tests.kernel_sites import Run, check_graph
from tests.native_kernels import on_runnable_targets, run_natively
from tests.nets import draw


def stepped(op: Op, dy: TensorType, x: TensorType) -> Graph:
    """m = 0.9 m + dw; w = w - lr m."""
    b = GraphBuilder("step")
    gradients, source, rate = b.input("dy", dy), b.input("x", x), b.input("lr", f32())
    dw = b.emit(op, gradients, source)
    if isinstance(op, PartialWeightGrad):
        dw = b.emit(SumParts(), dw)
    w, m = b.param("w", dw.type), b.param("m", dw.type)
    momentum = b.emit(Map("0.9 * a + b"), m, dw)
    return b.build([], [(m, momentum), (w, b.emit(Map("a - c * b"), w, momentum, rate))])


def check_step(graph: Graph, target: Target, run: Run) -> None:
    """The step is one fused kernel, which writes over the params."""
    feeds = {**draw(graph.inputs, 1), **draw(graph.params, 2)}
    program = check_graph(graph, (FuseEpilogues(),), target, feeds, run=run)
    (node,) = [call.node for call in program.calls if call.node and isinstance(call.node.op, Fused)]
    site = site_of_node(program.plan, node, target)
    assert {node.operands[i].name for i in site.in_place.values()} == {"m", "w"}


def convolution(
    conv: Conv2d, x: TensorType, maps: int, kernel: tuple[int, int], parts: int = 0
) -> tuple[Op, TensorType, TensorType]:
    """The op of the weight gradient, and its operands."""
    (dy,) = conv.infer(x, f32(maps, x.shape[1] // conv.groups, *kernel))
    common = (conv.stride, conv.pad, conv.dilation, conv.groups, kernel)
    op = PartialWeightGrad(*common, parts=parts) if parts else Conv2dWeightGrad(*common)
    return op, dy, x


CASES = {
    "conv": convolution(Conv2d(pad=(1, 1, 1, 1)), f32(3, 17, 9, 7), 33, (3, 3)),
    "grouped": convolution(Conv2d(groups=3), f32(2, 9, 5, 7), 12, (3, 3)),
    "depthwise": convolution(Conv2d(groups=17), f32(2, 17, 9, 7), 17, (3, 3)),
    "first": convolution(Conv2d((2, 2), (3, 3, 3, 3)), f32(2, 3, 21, 21), 17, (7, 7)),
    "chunks": convolution(Conv2d(), f32(8, 33, 17, 17), 40, (1, 1)),
    "parts": convolution(Conv2d(pad=(1, 1, 1, 1)), f32(4, 5, 9, 7), 9, (3, 3), parts=2),
    "one map": convolution(Conv2d(), f32(2, 9, 5, 5), 1, (3, 3)),
    "winograd": (WinogradWeightGrad((4, 4), (3, 3), (1, 1, 1, 1)), f32(2, 33, 9, 7), f32(2, 17, 9, 7)),
    "winograd, one map": (WinogradWeightGrad((2, 2), (3, 3), (0, 0, 0, 0)), f32(1, 1, 5, 5), f32(1, 9, 7, 7)),
    "dense": (DenseWeightGrad(), f32(8, 41), f32(8, 130)),
    "dense of maps": (DenseWeightGrad(), f32(3, 17), f32(3, 7, 3, 5)),
}


@on_runnable_targets
@pytest.mark.parametrize("case", CASES)
def test_steps_compiled(case: str, target: Target) -> None:
    check_step(stepped(*CASES[case]), target, run_natively(target))


@pytest.mark.parametrize("case", ["conv", "depthwise", "parts", "winograd", "dense"])
def test_steps_interpreted(case: str) -> None:
    check_step(stepped(*CASES[case]), TARGETS["avx2"], interpret)


def test_channel_operands_stay_outside() -> None:
    b = GraphBuilder("net")
    dy, x, scale = b.input("dy", f32(2, 9, 5, 5)), b.input("x", f32(2, 7, 7, 7)), b.input("s", f32(7))
    dw = b.emit(Conv2dWeightGrad(kernel=(3, 3)), dy, x)
    graph = FuseEpilogues()(b.build([b.emit(Map("a * b"), dw, scale)]))
    assert [node.op.name for node in graph.nodes] == ["conv2d_weight_grad", "map"]
