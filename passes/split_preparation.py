"""Splits what depends on weights alone from what runs every time: the work of preparing parameters.

Stands behind the choice of algorithms and before fusion, for inference. Folded batch norms and
transformed filters are computed once, when weights are packed, and become parameters themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ops.shape import Constant

GIVEN = ".given"
"""Behind a weight's name: the input of the preparation that brings it."""


@dataclass(frozen=True)
class SplitPreparation:
    """Leaves what must run every time; see `split_preparation`, which gives the rest as well."""

    name: ClassVar[str] = "split_preparation"

    def __call__(self, graph: Graph) -> Graph:
        return split_preparation(graph).main


@dataclass(frozen=True)
class Split:
    """A graph without the nodes that params alone decide, and those nodes, in order."""

    main: Graph
    nodes: tuple[Node, ...]


def split_preparation(graph: Graph) -> Split:
    """Take out the nodes that depend on params alone, none of which the graph updates.

    Their results become params where other nodes need them; params that nothing needs any more go.

    graph @net(%x; @w, @s) -> (%2) {           graph @net(%x; @conv.scaled) -> (%2) {
      %1 = scale_maps(@w, @s)             ->     %2 = conv2d(%x, @conv.scaled)
      %2 = conv2d(%x, %1)                      }
    }                                          and %1 = scale_maps(@w, @s)
    """
    moved = _moved(graph)
    rest = tuple(n for i, n in enumerate(graph.nodes) if i not in moved)
    needed = {o for n in rest for o in n.operands} | graph.results
    new = _new_params(graph, moved, needed)
    kept = (p for p in graph.params if p in needed or _is_updated(graph, p))
    main = Graph(
        graph.name,
        graph.inputs,
        (*kept, *new.values()),
        tuple(replace(n, operands=tuple(new.get(o, o) for o in n.operands)) for n in rest),
        tuple(new.get(v, v) for v in graph.outputs),
        graph.updates,
    )
    return Split(main, _preparing(graph, moved, new))


def preparation_graph(
    main: Graph, weights: Sequence[Value], nodes: Iterable[Node], states: Mapping[str, float]
) -> Graph:
    """The graph that fills the params of `main`: from the weights as inputs, by `nodes`; the optimizer's
    states get one number each.

    graph @net.prepare(%w.given, %s.given; @conv.scaled) {
      %1 = scale_maps(%w.given, %s.given)
      update @conv.scaled = %1
    }
    """
    builder = GraphBuilder(f"{main.name}.prepare")
    values: dict[Value, Value] = {w: builder.input(f"{w.name}{GIVEN}", w.type) for w in weights}
    params = [builder.param(p.name, p.type) for p in main.params]
    for node in nodes:
        with builder.at(node.layer, node.loc):
            names = [f"{r.name}{GIVEN}" for r in node.results]
            results = builder.emit_all(node.op, *(values[o] for o in node.operands), names=names)
        values.update(zip(node.results, results, strict=True))
    updates = []
    for param in params:
        if param.name in states:
            value = builder.emit(Constant((states[param.name],), param.type.shape, param.type.dtype))
            updates.append((param, value))
        elif param in values:
            updates.append((param, values[param]))
    return builder.build((), updates)


def _moved(graph: Graph) -> frozenset[int]:
    """The nodes, by index, that depend on params and on nothing that changes from run to run."""
    fixed = {p for p in graph.params if not _is_updated(graph, p)}
    constants = {n.result for n in graph.nodes if isinstance(n.op, Constant)}
    moved: set[int] = set()
    for index, node in enumerate(graph.nodes):
        known = all(o in fixed or o in constants for o in node.operands)
        if known and any(o in fixed for o in node.operands):
            fixed.update(node.results)
            moved.add(index)
    return frozenset(moved)


def _is_updated(graph: Graph, param: Value) -> bool:
    return any(param == updated for updated, _ in graph.updates)


def _new_params(graph: Graph, moved: frozenset[int], needed: set[Value]) -> Mapping[Value, Value]:
    """For each moved result that is needed: the param it becomes, named after its layer."""
    builder = GraphBuilder.extend(graph)
    return {
        result: builder.param(builder.fresh(_stem(graph.nodes[index])), result.type)
        for index in sorted(moved)
        for result in graph.nodes[index].results
        if result in needed
    }


def _stem(node: Node) -> str:
    return f"{node.layer}.{node.op.name}" if node.layer else node.op.name


def _preparing(graph: Graph, moved: frozenset[int], new: Mapping[Value, Value]) -> tuple[Node, ...]:
    """The moved nodes and the constants they read, their results under their params' names."""
    read = {o for i in moved for o in graph.nodes[i].operands}
    nodes = []
    for index, node in enumerate(graph.nodes):
        if index in moved or (isinstance(node.op, Constant) and node.result in read):
            operands = tuple(new.get(o, o) for o in node.operands)
            nodes.append(replace(node, operands=operands, results=tuple(new.get(r, r) for r in node.results)))
    return tuple(nodes)
