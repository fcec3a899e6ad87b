"""Turns normalization into what kernels compute: sums over parts of the batch, and elementwise nodes.

Stands behind differentiation and before fusion, which takes the elementwise nodes together with the activations and
additions around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ops.batch_sums import BatchMoments, MergeMoments, part_rows, row_count
from cnnc.ops.elementwise import Map
from cnnc.ops.norm import BatchNorm, BatchStatistics
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class LowerBatchNorm:
    """Statistics are put together from parts of the batch; a normalization is a product and a sum.

    %1, %2 = batch_statistics(%x)            %4, %5 = batch_moments(%x) {rows=1024}
    %3 = batch_norm(%x, @w, @b, %1, %2)      %1, %2 = merge_moments(%4, %5) {rows=1024, count=6272}
                                        ->   %6 = map(@w, %2) {f="a / sqrt(b + 1e-05)"}
                                             %7 = map(@b, %1, %6) {f="a - b * c"}
                                             %3 = map(%x, %6, %7) {f="a * b + c"}
    """

    name: ClassVar[str] = "lower_batch_norm"

    def __call__(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            if isinstance(node.op, BatchStatistics):
                _put_together(rewriter, node)
            elif isinstance(node.op, BatchNorm):
                x, *channels = (rewriter.new[o] for o in node.operands)
                rewriter.copy(node, Map("a * b + c"), (x, *scale_and_shift(rewriter, node, node.op, *channels)))
            else:
                rewriter.copy(node)
        return rewriter.finish()


def scale_and_shift(
    rewriter: Rewriter, node: Node, op: BatchNorm, weight: Value, bias: Value, mean: Value, variance: Value
) -> tuple[Value, Value]:
    """What a normalization multiplies by and what it then adds; all are values of the new graph."""
    scale = rewriter.emit(node, op.scale, weight, variance, stem=f"{node.result.name}.scale")
    shift = rewriter.emit(node, Map("a - b * c"), bias, mean, scale, stem=f"{node.result.name}.shift")
    return scale, shift


def _put_together(rewriter: Rewriter, node: Node) -> None:
    x = rewriter.new[node.operands[0]]
    rows, stem = part_rows(x.type), node.results[0].name
    parts = rewriter.emit_all(node, BatchMoments(rows), x, stems=(f"{stem}.means", f"{stem}.squares"))
    rewriter.copy(node, MergeMoments(rows, row_count(x.type)), parts)
