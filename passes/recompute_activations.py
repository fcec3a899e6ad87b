"""Computes chosen values of the forward part again for the backward part, instead of keeping them.

Stands in front of fusion, so that what is computed again runs in one kernel with its neighbours, and behind
the elimination of common subexpressions. Which values to choose is found by cnnc/fit_memory.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import networkx as nx

from cnnc.errors import CnncError
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Trait
from cnnc.passes.rewrite import Rewriter

AGAIN = ".again"
"""Behind a value's name: what it is called when it is computed for the second time."""


@dataclass(frozen=True)
class RecomputeActivations:
    """Readers in the backward part get `values`, by their names, from a second computation in front of the
    first of them (Chen et al. 2016, "Training deep nets with sublinear memory cost").

    Of a chain of chosen values all are computed again, from the last values that are kept. `after` holds
    them back until there is a gradient that their reader needs as well. A reader that no gradient reaches
    is none of the backward part. The same ops give the same bits. Raises CnncError for a name of no value
    that a node of one result in the forward part computes.

    %1 = relu(%x)                            %1 = relu(%x)
    %2 = conv2d(%1, @w)                      %2 = conv2d(%1, @w)
    ...                                ->    ...
    %8 = conv2d_weight_grad(%7, %1)          %1.again = relu(%x) after(%7)
                                             %8 = conv2d_weight_grad(%7, %1.again)
    """

    name: ClassVar[str] = "recompute_activations"
    values: tuple[str, ...]

    def __call__(self, graph: Graph) -> Graph:
        walk = _Walk(graph, forward_nodes(graph), frozenset(self.values))
        possible = {v.name for v in recomputable(graph)}
        unknown = [name for name in self.values if name not in possible]
        if unknown:
            raise CnncError(f"{graph.name} has no value {unknown[0]!r} that could be computed again")
        return walk.run()


def forward_nodes(graph: Graph) -> frozenset[int]:
    """The nodes, by index, on which an output depends: in a training step the outputs are the loss and what
    is told with it, and all else is the backward part and the updates."""
    ends = {graph.position[v] for v in graph.outputs if v in graph.position}
    return frozenset(ends.union(*(nx.ancestors(graph.dataflow, end) for end in ends)))


def recomputable(graph: Graph) -> Iterator[Value]:
    """The values that RecomputeActivations takes: single results in the forward part."""
    results = (graph.nodes[index].results for index in sorted(forward_nodes(graph)))
    return (values[0] for values in results if len(values) == 1)


@dataclass
class _Walk:
    """One walk over the old graph. `again` maps chosen values to their second computations in the new one."""

    graph: Graph
    forward: frozenset[int]
    chosen: frozenset[str]
    again: dict[Value, Value] = field(default_factory=dict)

    def run(self) -> Graph:
        self.rewriter = Rewriter(self.graph)
        self.rewriter.declare()
        for index, node in enumerate(self.graph.nodes):
            moment = None if index in self.forward else self._moment(node)
            if moment is None:
                self.rewriter.copy(node)
                continue
            self._recompute(node, moment)
            operands = tuple(self.again.get(o, self.rewriter.new[o]) for o in node.operands)
            self.rewriter.copy(node, operands=operands)
        return self.rewriter.finish()

    def _moment(self, node: Node) -> Value | None:
        """The gradient that must be there before something is computed again for `node`; None if it has none.

        Of the node's own operands the last one. An elementwise node, or sums, will rather be part of the
        kernel that computes this operand, which must find everything else there: so for one it is what that
        kernel reads.
        """
        late = self._latest(node)
        while late is not None and (node.op.has(Trait.ELEMENTWISE) or node.op.has(Trait.SUMS)):
            node = self.graph.producer[late]
            earlier = self._latest(node)
            if earlier is None:
                return late
            late = earlier
        return late

    def _latest(self, node: Node) -> Value | None:
        """The operand that the backward part computes last."""
        late = (o for o in node.operands if o in self.graph.position)
        backward = [o for o in late if self.graph.position[o] not in self.forward]
        return max(backward, key=self.graph.position.__getitem__, default=None)

    def _recompute(self, reader: Node, moment: Value) -> None:
        """Emit what the reader needs of the chosen values and has not been computed again yet.

        Later readers share it; but what is merely on the way is computed once more for them if it is
        cheap: otherwise a long chain would be kept from the first need on. Contractions are not cheap, and
        what a contraction reads is read again soon, by the gradient of its weights.
        """
        missing = {o for o in reader.operands if o.name in self.chosen and o not in self.again}
        pending = list(missing)
        while pending:
            operands = self.graph.producer[pending.pop()].operands
            new = {o for o in operands if o.name in self.chosen and o not in self.again} - missing
            missing |= new
            pending += new
        contractions = [self.graph.producer[v] for v in missing if self._is_contraction(v)]
        shared = {*reader.operands, *(v for n in contractions for v in (*n.operands, *n.results))}
        made: dict[Value, Value] = {}
        for value in sorted(missing, key=self.graph.position.__getitem__):
            node, known = self.graph.producer[value], {**self.again, **made}
            operands = tuple(known.get(o, self.rewriter.new[o]) for o in node.operands)
            follows = any(o in known for o in node.operands)
            after = () if follows else (self.rewriter.new[moment],)
            made[value] = self.rewriter.emit(
                node, node.op, *operands, stem=f"{value.name}{AGAIN}", after=after
            )
        self.again.update((value, copy) for value, copy in made.items() if value in shared)

    def _is_contraction(self, value: Value) -> bool:
        return self.graph.producer[value].op.has(Trait.CONTRACTION)
