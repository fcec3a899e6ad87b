"""GraphBuilder: the one place where graphs grow. Used by the frontend and by every pass.

It infers result types at once, invents unique names, and freezes into a Graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cnnc.errors import CnncError
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.location import UNKNOWN, Location
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType


class GraphBuilder:
    """Builds a graph node by node; `layer` and `loc` apply to what is emitted under `at`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._names: set[str] = set()
        self._inputs: list[Value] = []
        self._params: list[Value] = []
        self._nodes: list[Node] = []
        self._layer = ""
        self._loc = UNKNOWN

    @classmethod
    def extend(cls, graph: Graph) -> GraphBuilder:
        """A builder that starts with everything in `graph` but its outputs and updates."""
        builder = cls(graph.name)
        builder._inputs, builder._params = list(graph.inputs), list(graph.params)
        builder._nodes = list(graph.nodes)
        builder._names = set(graph.values)
        return builder

    def input(self, name: str, type: TensorType) -> Value:
        """A tensor given on each run. Raises CnncError if the name is taken."""
        self._inputs.append(self._claim(name, type))
        return self._inputs[-1]

    def param(self, name: str, type: TensorType) -> Value:
        """A tensor that lives between runs. Raises CnncError if the name is taken."""
        self._params.append(self._claim(name, type))
        return self._params[-1]

    @contextmanager
    def at(self, layer: str, loc: Location) -> Iterator[None]:
        """Give `layer` and `loc` to the nodes emitted inside."""
        saved = self._layer, self._loc
        self._layer, self._loc = layer, loc
        try:
            yield
        finally:
            self._layer, self._loc = saved

    def emit(self, op: Op, *operands: Value, name: str | None = None) -> Value:
        """Append a single-result node and return its value."""
        (value,) = self.emit_all(op, *operands, names=[name] if name else None)
        return value

    def emit_all(
        self, op: Op, *operands: Value, names: Iterable[str] | None = None, after: tuple[Value, ...] = ()
    ) -> tuple[Value, ...]:
        """Append a node and return its values, named `names` or by the next free numbers. It runs when
        the values in `after` are there."""
        try:
            types = op.infer(*(o.type for o in operands))
        except CnncError as error:
            raise type(error)(f"{op.name}: {error.message}", self._loc) from None
        chosen = list(names) if names is not None else [""] * len(types)
        results = tuple(self._claim(n or self.fresh(), t) for n, t in zip(chosen, types, strict=True))
        self._nodes.append(Node(op, tuple(operands), results, self._layer, self._loc, after))
        return results

    def append(self, node: Node) -> None:
        """Append a node made elsewhere, results and all."""
        self._names.update(v.name for v in node.results)
        self._nodes.append(node)

    def fresh(self, stem: str = "") -> str:
        """A name not yet taken: the next number, or `stem` with a number behind it if needed."""
        candidate, count = stem or str(len(self._names)), len(self._names)
        while candidate in self._names:
            count += 1
            candidate = f"{stem}.{count}" if stem else str(count)
        return candidate

    def build(self, outputs: Iterable[Value], updates: Iterable[tuple[Value, Value]] = ()) -> Graph:
        return Graph(
            self.name,
            tuple(self._inputs),
            tuple(self._params),
            tuple(self._nodes),
            tuple(outputs),
            tuple(updates),
        )

    def _claim(self, name: str, type: TensorType) -> Value:
        if name in self._names:
            raise CnncError(f"the name {name!r} is already taken in {self.name}", self._loc)
        self._names.add(name)
        return Value(name, type)
