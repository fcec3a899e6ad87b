"""Turns normalization into what kernels compute: sums over parts of the batch, and elementwise nodes.

Stands behind differentiation and before fusion, which takes the elementwise nodes together with the
activations and additions around them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ops.batch_sums import BatchMoments, MergeMoments, part_rows, row_count
from cnnc.ops.elementwise import Map
from cnnc.ops.norm import BatchNorm, BatchNormTrain, BatchStatistics
from cnnc.passes.rewrite import Rewriter

_Statistics = tuple[Value, Value]
"""Mean and variance, values of the new graph."""


@dataclass(frozen=True)
class LowerBatchNorm:
    """Statistics are put together from parts of the batch; a normalization is a product and a sum.

    %1 = batch_norm_train(%x, @w, @b)        %2, %3 = batch_moments(%x) {rows=1024}
                                             %4, %5 = merge_moments(%2, %3) {rows=1024, count=6272}
                                        ->   %6 = map(@w, %5) {f="a / sqrt(b + 1e-05)"}
                                             %7 = map(@b, %4, %6) {f="a - b * c"}
                                             %1 = map(%x, %6, %7) {f="a * b + c"}

    Those of one value are computed once.
    """

    name: ClassVar[str] = "lower_batch_norm"

    def __call__(self, graph: Graph) -> Graph:
        return _Walk(graph, Rewriter(graph)).run()


def scale_and_shift(
    rewriter: Rewriter, node: Node, op: BatchNorm, weight: Value, bias: Value, mean: Value, variance: Value
) -> tuple[Value, Value]:
    """What a normalization multiplies by and what it then adds; all are values of the new graph."""
    scale = rewriter.emit(node, op.scale, weight, variance, stem=f"{node.result.name}.scale")
    shift = rewriter.emit(node, Map("a - b * c"), bias, mean, scale, stem=f"{node.result.name}.shift")
    return scale, shift


@dataclass(frozen=True)
class _Walk:
    """One walk over the old graph; `known` are the statistics of its values so far."""

    graph: Graph
    rewriter: Rewriter
    known: dict[Value, _Statistics] = field(default_factory=dict)

    def run(self) -> Graph:
        self.rewriter.declare()
        for node in self.graph.nodes:
            operands = tuple(self.rewriter.new[o] for o in node.operands)
            match node.op:
                case BatchStatistics():
                    statistics = self._statistics(node, node.operands[0])
                    self.rewriter.new.update(zip(node.results, statistics, strict=True))
                case BatchNormTrain(eps):
                    statistics = self._statistics(node, node.operands[0])
                    self._normalize(node, BatchNorm(eps), (*operands, *statistics))
                case BatchNorm():
                    self._normalize(node, node.op, operands)
                case _:
                    self.rewriter.copy(node)
        return self.rewriter.finish()

    def _normalize(self, node: Node, op: BatchNorm, operands: tuple[Value, ...]) -> None:
        x, *channels = operands
        self.rewriter.copy(node, Map("a * b + c"), (x, *scale_and_shift(self.rewriter, node, op, *channels)))

    def _statistics(self, node: Node, x: Value) -> _Statistics:
        """Of a value of the old graph, for `node`."""
        if x not in self.known:
            self.known[x] = self._merged(node, x)
        return self.known[x]

    def _merged(self, node: Node, x: Value) -> _Statistics:
        rows, stem, value = part_rows(x.type), node.results[0].name, self.rewriter.new[x]
        stems = (f"{stem}.means", f"{stem}.squares")
        parts = self.rewriter.emit_all(node, BatchMoments(rows), value, stems=stems)
        stems = (f"{stem}.mean", f"{stem}.variance")
        merge = MergeMoments(rows, row_count(x.type))
        mean, variance = self.rewriter.emit_all(node, merge, *parts, stems=stems)
        return mean, variance
