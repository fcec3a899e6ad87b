"""ShareStatistics: normalizations of joined values use the statistics of what was joined.

Where layers join their results to all that came before (Huang et al. 2017, "Densely Connected Convolutional
Networks"), each value is normalized once for every layer behind it, always with the same mean and variance.
Stands before autodiff, which then carries what flows back through these two numbers of a channel to where
they come from: the value's gradient is corrected once, not once for every layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ops.concat import Concat
from cnnc.ops.norm import BatchNorm, BatchNormTrain, BatchStatistics
from cnnc.passes.rewrite import Rewriter

_Statistics = tuple[Value, Value]
"""Mean and variance, values of the new graph."""


@dataclass(frozen=True)
class ShareStatistics:
    """Those of each part are computed once, and joined as the parts are.

                                                      %3 = concat(%1, %2) {axis=1}
    %3 = concat(%1, %2) {axis=1}                      %m1, %v1 = batch_statistics(%1)
    %4 = batch_norm_train(%3, @w, @b)         ->      %m2, %v2 = batch_statistics(%2)
                                                      %m, %v = concat(%m1, %m2), concat(%v1, %v2)
                                                      %4 = batch_norm(%3, @w, @b, %m, %v)

    Parts may be joined themselves. Normalizations of other values stay.
    """

    name: ClassVar[str] = "share_statistics"

    def __call__(self, graph: Graph) -> Graph:
        return _Walk(graph, Rewriter(graph)).run()


@dataclass(frozen=True)
class _Walk:
    """One walk over the old graph; `known` are the statistics of its values so far."""

    graph: Graph
    rewriter: Rewriter
    known: dict[Value, _Statistics] = field(default_factory=dict)

    def run(self) -> Graph:
        self.rewriter.declare()
        for node in self.graph.nodes:
            if not node.operands or not self._parts(node.operands[0]):
                self.rewriter.copy(node)
            elif isinstance(node.op, BatchStatistics):
                statistics = self._statistics(node, node.operands[0])
                self.rewriter.new.update(zip(node.results, statistics, strict=True))
            elif isinstance(node.op, BatchNormTrain):
                operands = tuple(self.rewriter.new[o] for o in node.operands)
                statistics = self._statistics(node, node.operands[0])
                self.rewriter.copy(node, BatchNorm(node.op.eps), (*operands, *statistics))
            else:
                self.rewriter.copy(node)
        return self.rewriter.finish()

    def _parts(self, value: Value) -> tuple[Value, ...]:
        """The values whose channels stand side by side in `value`, if it is joined of any."""
        producer = self.graph.producer.get(value)
        return producer.operands if producer is not None and producer.op == Concat(axis=1) else ()

    def _statistics(self, node: Node, value: Value) -> _Statistics:
        """Of a value of the old graph, for `node`."""
        if value not in self.known:
            self.known[value] = self._emitted(node, value)
        return self.known[value]

    def _emitted(self, node: Node, value: Value) -> _Statistics:
        mean, variance = (f"{node.results[0].name}.{kind}" for kind in ("mean", "variance"))
        parts = self._parts(value)
        if not parts:
            operand = self.rewriter.new[value]
            found = self.rewriter.emit_all(node, BatchStatistics(), operand, stems=(mean, variance))
            return found[0], found[1]
        means, variances = zip(*(self._statistics(node, part) for part in parts), strict=True)
        return (
            self.rewriter.emit(node, Concat(axis=0), *means, stem=mean),
            self.rewriter.emit(node, Concat(axis=0), *variances, stem=variance),
        )
