"""Rewriter: copies a graph node by node, in order, and leaves room to do otherwise at any node.

The passes that change values' types or unite values are built on it, so that traversal, renaming
and the copying of outputs and updates are written once. Names, layers and locations are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from types import MappingProxyType

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType

NO_CHANGES: Mapping[Value, TensorType] = MappingProxyType({})


class Rewriter:
    """Walks `graph` and builds its successor; `new` maps each value met so far to its copy."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.new: dict[Value, Value] = {}
        self._builder = GraphBuilder(graph.name)
        self._invented: set[str] = set()
        self._updates: list[tuple[Value, Value]] = []

    def declare(self, types: Mapping[Value, TensorType] = NO_CHANGES) -> None:
        """Copy the inputs and params in their order, those in `types` under another type."""
        for value in self.graph.inputs:
            self.new[value] = self._builder.input(value.name, types.get(value, value.type))
        for value in self.graph.params:
            self.new[value] = self._builder.param(value.name, types.get(value, value.type))

    def copy(self, node: Node, op: Op | None = None, operands: tuple[Value, ...] | None = None) -> None:
        """Emit `node` with its names, the result types inferred anew.

        `op` takes the place of its op, and `operands` (values of the new graph) that of the copies
        of its operands. Raises ShapeError at the node's location if the types do not fit.
        """
        copied = operands or tuple(self.new[o] for o in node.operands)
        after = tuple(self.new[v] for v in node.after)
        names = [r.name for r in node.results]
        with self._builder.at(node.layer, node.loc):
            results = self._builder.emit_all(op or node.op, *copied, names=names, after=after)
        self.new.update(zip(node.results, results, strict=True))

    def emit(self, node: Node, op: Op, *operands: Value, stem: str, after: tuple[Value, ...] = ()) -> Value:
        """Emit a further node on behalf of `node`, its result named `stem`, or `stem.1` and so on. It runs
        when the values in `after` are there."""
        (result,) = self.emit_all(node, op, *operands, stems=(stem,), after=after)
        return result

    def emit_all(
        self, node: Node, op: Op, *operands: Value, stems: Sequence[str], after: tuple[Value, ...] = ()
    ) -> tuple[Value, ...]:
        """The same for an op of several results."""
        names = [self._invent(stem) for stem in stems]
        with self._builder.at(node.layer, node.loc):
            return self._builder.emit_all(op, *operands, names=names, after=after)

    def update(self, param: Value, value: Value) -> None:
        """Let a param have `value` after a run; both are values of the new graph."""
        self._updates.append((param, value))

    def finish(self) -> Graph:
        """The new graph, with the copies of the outputs and updates, and the further updates."""
        updates = [(self.new[param], self.new[value]) for param, value in self.graph.updates]
        return self._builder.build([self.new[v] for v in self.graph.outputs], [*updates, *self._updates])

    def _invent(self, stem: str) -> str:
        names = (stem if number == 0 else f"{stem}.{number}" for number in count())
        name = next(n for n in names if n not in self.graph.values and n not in self._invented)
        self._invented.add(name)
        return name
