"""Pads the inputs of weight gradients, so that their kernels need not test for edges.

Stands behind autodiff and before fusion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cnnc.ir.graph import Graph, Node
from cnnc.ops.conv import Conv2dWeightGrad
from cnnc.ops.shape import Pad2d
from cnnc.passes.rewrite import Rewriter

UNPADDED = (0, 0, 0, 0)


@dataclass(frozen=True)
class LowerWindows:
    """Weight gradients get inputs padded before.

    %3 = conv2d_weight_grad(%dy, %x) {pad=(1,1,1,1)}
      ->  %3.x = pad2d(%x) {pad=(1,1,1,1)};  %3 = conv2d_weight_grad(%dy, %3.x) {pad=(0,0,0,0)}
    """

    name: ClassVar[str] = "lower_windows"

    def __call__(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            if isinstance(node.op, Conv2dWeightGrad) and any(node.op.pad):
                _pad_input(rewriter, node)
            else:
                rewriter.copy(node)
        return rewriter.finish()


def _pad_input(rewriter: Rewriter, node: Node) -> None:
    """Pad the input before, and the op not at all."""
    assert isinstance(node.op, Conv2dWeightGrad)
    dy, x = (rewriter.new[o] for o in node.operands)
    padded = rewriter.emit(node, Pad2d(node.op.pad), x, stem=f"{node.result.name}.padded")
    rewriter.copy(node, replace(node.op, pad=UNPADDED), (dy, padded))
