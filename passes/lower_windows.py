"""Reduces the windows of convolutions and their gradients to those kernels run directly.

Stands behind autodiff and before fusion. What a kernel would otherwise have to test for each element
becomes a node of its own: zeros around a map (`pad2d`), zeros between its elements (`dilate2d`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.shape import Crop2d, Dilate2d, Pad2d
from cnnc.passes.rewrite import Rewriter

UNPADDED = (0, 0, 0, 0)


@dataclass(frozen=True)
class LowerWindows:
    """Weight gradients get inputs padded before, strided input gradients become dense ones, and
    padded rows are never dilated.

    %3 = conv2d_weight_grad(%dy, %x) {pad=(1,1,1,1)}
      ->  %3.x = pad2d(%x) {pad=(1,1,1,1)};  %3 = conv2d_weight_grad(%dy, %3.x) {pad=(0,0,0,0)}
    %3 = conv2d_input_grad(%dy, @w) {stride=(2,2)}
      ->  %3.dy = dilate2d(%dy) {stride=(2,2)};  %3 = conv2d_input_grad(%3.dy, @w) {stride=(1,1)}
    %3 = conv2d(%x, @w) {pad=(2,2,2,2), dilation=(2,2)}
      ->  %3.x = pad2d(%x) {pad=(2,2,2,2)};  %3 = conv2d(%3.x, @w) {pad=(0,0,0,0), dilation=(2,2)}
    """

    name: ClassVar[str] = "lower_windows"

    def __call__(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            if isinstance(node.op, Conv2dWeightGrad) and any(node.op.pad):
                _pad_input(rewriter, node, position=1)
            elif isinstance(node.op, Conv2d) and any(node.op.pad) and node.op.dilation[0] > 1:
                _pad_input(rewriter, node, position=0)
            elif isinstance(node.op, Conv2dInputGrad):
                _lower_input_grad(rewriter, node, node.op)
            else:
                rewriter.copy(node)
        return rewriter.finish()


def _pad_input(rewriter: Rewriter, node: Node, position: int) -> None:
    """Pad the operand at `position` before, and the op not at all."""
    assert isinstance(node.op, Conv2d | Conv2dWeightGrad)
    operands = [rewriter.new[o] for o in node.operands]
    stem = f"{node.result.name}.padded"
    operands[position] = rewriter.emit(node, Pad2d(node.op.pad), operands[position], stem=stem)
    rewriter.copy(node, replace(node.op, pad=UNPADDED), tuple(operands))


def _lower_input_grad(rewriter: Rewriter, node: Node, op: Conv2dInputGrad) -> None:
    dy, w = (rewriter.new[o] for o in node.operands)
    if op.stride != (1, 1):
        dy = _spread(rewriter, node, op, dy, w)
        op = replace(op, stride=(1, 1))
    if op.dilation[0] > 1:
        dy, op = _frame(rewriter, node, op, dy, w)
    rewriter.copy(node, op, (dy, w))


def _spread(rewriter: Rewriter, node: Node, op: Conv2dInputGrad, dy: Value, w: Value) -> Value:
    """dy with zeros between its elements, and behind them for input rows no window began at."""
    stem = f"{node.result.name}.spread"
    spread = rewriter.emit(node, Dilate2d(op.stride), dy, stem=stem)
    stepless = replace(op, stride=(1, 1)).window(w.type.shape).result_size(*op.size)
    rest = (0, 0, stepless[0] - spread.type.shape[2], stepless[1] - spread.type.shape[3])
    return rewriter.emit(node, Pad2d(rest), spread, stem=stem) if any(rest) else spread


def _frame(
    rewriter: Rewriter, node: Node, op: Conv2dInputGrad, dy: Value, w: Value
) -> tuple[Value, Conv2dInputGrad]:
    """dy with the zeros around it that the flipped filter reads, and the op that expects them."""
    reach = tuple(d * (k - 1) for d, k in zip(op.dilation, w.type.shape[2:], strict=True))
    frame = tuple(r - p for r, p in zip(reach * 2, op.pad, strict=True))
    outside, inside = (max(f, 0) for f in frame), (max(-f, 0) for f in frame)
    top, left, bottom, right = outside
    if any((top, left, bottom, right)):
        dy = rewriter.emit(node, Pad2d((top, left, bottom, right)), dy, stem=f"{node.result.name}.framed")
    top, left, bottom, right = inside
    if any((top, left, bottom, right)):
        dy = rewriter.emit(node, Crop2d((top, left, bottom, right)), dy, stem=f"{node.result.name}.cropped")
    return dy, replace(op, pad=(reach[0], reach[1], reach[0], reach[1]))
