"""Makes normalization part of the contraction before it, for inference.

Stands behind absorb_flatten, which wants weights to be params. What is computed of params alone, the scaled
weights among it, is taken out by passes/split_preparation.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cnnc.ir.graph import Graph, Node
from cnnc.ops.conv import Conv2d, Conv2dInputGrad
from cnnc.ops.dense import Dense
from cnnc.ops.elementwise import Bias, Map
from cnnc.ops.norm import BatchNorm, ScaleMaps
from cnnc.passes.lower_batch_norm import scale_and_shift
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class FoldBatchNorm:
    """A convolution or dense product that only a normalization reads, perhaps with a bias between them, gets
    scaled weights and another bias.

    %1 = conv2d(%x, @w)                      %3 = map(@g, @v) {f="a / sqrt(b + 1e-05)"}
    %2 = batch_norm(%1, @g, @b, @m, @v)      %4 = map(@b, @m, %3) {f="a - b * c"}
                                        ->   %5 = scale_maps(@w, %3) {axis=0}
                                             %1 = conv2d(%x, %5)
                                             %2 = bias(%1, %4)

    The contraction moves to the place of the normalization. Other normalizations stay as they are.
    """

    name: ClassVar[str] = "fold_batch_norm"

    def __call__(self, graph: Graph) -> Graph:
        folds = {n: fold for n in graph.nodes if (fold := _fold(graph, n)) is not None}
        moved = {
            node for fold in folds.values() for node in (fold.contraction, fold.bias) if node is not None
        }
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            if node in folds:
                _emit_folded(rewriter, node, folds[node])
            elif node not in moved:
                rewriter.copy(node)
        return rewriter.finish()


@dataclass(frozen=True)
class _Fold:
    """What stands before a normalization: a contraction, its weights' axis of maps, and a bias or none."""

    norm: BatchNorm
    contraction: Node
    axis: int
    bias: Node | None


def _fold(graph: Graph, node: Node) -> _Fold | None:
    """The fold at a normalization; None if `node` is none or what it reads is no contraction's."""
    if not isinstance(node.op, BatchNorm):
        return None
    before = graph.private_producer(node.operands[0])
    bias = before if before is not None and isinstance(before.op, Bias) else None
    contraction = graph.private_producer(bias.operands[0]) if bias is not None else before
    axis = _maps_axis(contraction)
    return None if contraction is None or axis is None else _Fold(node.op, contraction, axis, bias)


def _maps_axis(node: Node | None) -> int | None:
    """The axis of the weights, operand 1, along which they have a slice for each map of the result."""
    if node is None:
        return None
    if isinstance(node.op, Conv2dInputGrad):
        return 1 if node.op.groups == 1 else None
    return 0 if isinstance(node.op, Conv2d | Dense) else None


def _emit_folded(rewriter: Rewriter, node: Node, fold: _Fold) -> None:
    channels = (rewriter.new[o] for o in node.operands[1:])
    scale, shift = scale_and_shift(rewriter, node, fold.norm, *channels)
    source, weights = (rewriter.new[o] for o in fold.contraction.operands)
    scaled = rewriter.emit(node, ScaleMaps(fold.axis), weights, scale, stem=f"{node.result.name}.weight")
    if fold.bias is not None:
        old = rewriter.new[fold.bias.operands[1]]
        shift = rewriter.emit(node, Map("a * b + c"), old, scale, shift, stem=f"{node.result.name}.bias")
    rewriter.copy(fold.contraction, operands=(source, scaled))
    rewriter.copy(node, Bias(), (rewriter.new[fold.contraction.result], shift))
