"""Turns normalization into what kernels compute: sums over parts of the batch, and elementwise nodes.

Stands behind differentiation and before fusion, which takes the elementwise nodes together with the
activations and additions around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ops.batch_sums import BatchMoments, MergeMoments, part_rows, row_count
from cnnc.ops.elementwise import Map
from cnnc.ops.norm import BatchNorm, BatchNormTrain, BatchStatistics
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class LowerBatchNorm:
    """Statistics are put together from parts of the batch; a normalization is a product and a sum.

    %1 = batch_norm_train(%x, @w, @b)        %2, %3 = batch_moments(%x) {rows=1024}
                                             %4, %5 = merge_moments(%2, %3) {rows=1024, count=6272}
                                        ->   %6 = map(@w, %5) {f="a / sqrt(b + 1e-05)"}
                                             %7 = map(@b, %4, %6) {f="a - b * c"}
                                             %1 = map(%x, %6, %7) {f="a * b + c"}

    Statistics of one value that several nodes need are left to the elimination of common subexpressions.
    """

    name: ClassVar[str] = "lower_batch_norm"

    def __call__(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            operands = tuple(rewriter.new[o] for o in node.operands)
            match node.op:
                case BatchStatistics():
                    rewriter.copy(node, *_merged(rewriter, node, operands[0]))
                case BatchNormTrain(eps):
                    statistics = _statistics(rewriter, node, operands[0])
                    _normalize(rewriter, node, BatchNorm(eps), (*operands, *statistics))
                case BatchNorm():
                    _normalize(rewriter, node, node.op, operands)
                case _:
                    rewriter.copy(node)
        return rewriter.finish()


def scale_and_shift(
    rewriter: Rewriter, node: Node, op: BatchNorm, weight: Value, bias: Value, mean: Value, variance: Value
) -> tuple[Value, Value]:
    """What a normalization multiplies by and what it then adds; all are values of the new graph."""
    scale = rewriter.emit(node, op.scale, weight, variance, stem=f"{node.result.name}.scale")
    shift = rewriter.emit(node, Map("a - b * c"), bias, mean, scale, stem=f"{node.result.name}.shift")
    return scale, shift


def _normalize(rewriter: Rewriter, node: Node, op: BatchNorm, operands: tuple[Value, ...]) -> None:
    x, *channels = operands
    rewriter.copy(node, Map("a * b + c"), (x, *scale_and_shift(rewriter, node, op, *channels)))


def _statistics(rewriter: Rewriter, node: Node, x: Value) -> tuple[Value, ...]:
    """Mean and variance of x."""
    stem = node.result.name
    op, parts = _merged(rewriter, node, x)
    return rewriter.emit_all(node, op, *parts, stems=(f"{stem}.mean", f"{stem}.variance"))


def _merged(rewriter: Rewriter, node: Node, x: Value) -> tuple[MergeMoments, tuple[Value, ...]]:
    """What makes mean and variance of x, and of which operands."""
    rows, stem = part_rows(x.type), node.results[0].name
    parts = rewriter.emit_all(node, BatchMoments(rows), x, stems=(f"{stem}.means", f"{stem}.squares"))
    return MergeMoments(rows, row_count(x.type)), parts
