"""First step of the buffer plan: which values lie in a param's or in another value's memory by right.

A view lies where its operand lies, and channels that are joined lie in the result (channel_parts.py).
An updated param's new value takes the old one's place, either
as the elementwise node that computes it runs, or by a copy. What must be kept for it is an order:
whoever reads the old value runs before it is overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import networkx as nx

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Value
from cnnc.ir.layout import Layout
from cnnc.ir.location import UNKNOWN
from cnnc.ir.op import Trait
from cnnc.ir.plan import is_dense, may_write_over
from cnnc.ops.shape import Relayout
from cnnc.passes.channel_parts import Partition, TakesParts, settle_parts

Layouts = Mapping[str, Layout]


@dataclass(frozen=True)
class Settled:
    """A graph with the copies it needs, and what was decided about it.

    `views` maps each view that needs no kernel to the value whose memory it names, `written` each
    update's new value to the param it overwrites; `partition` says which values lie inside others.
    `flow` is the dataflow with further edges, from the readers of a param to the node that overwrites
    it; the graph's nodes may stand in an order against these.
    """

    graph: Graph
    layouts: Layouts
    views: Mapping[Value, Value]
    written: Mapping[Value, Value]
    partition: Partition
    flow: nx.DiGraph


def settle_results(graph: Graph, layouts: Layouts, takes_parts: TakesParts) -> Settled:
    """Decide where updates and views lie, and add a copy (a `relayout`) where one is owed.

    %2 = map(@w, %g); update @w = %2        ->  %2 is written over @w
    %2 = conv2d(%x, %y); update @w = %2     ->  %3 = relayout(%2) is written over @w
    %1 = flatten(%x)                        ->  %1 lies where %x lies
    graph (%x) -> (%x)                      ->  %1 = relayout(%x); graph (%x) -> (%1)
    """
    graph, layouts = _own_results(graph, layouts)
    views = _views(graph, layouts)
    apart = graph.results | views.keys() | set(views.values())
    graph, layouts, partition = settle_parts(graph, layouts, apart, takes_parts)
    flow = nx.DiGraph(graph.dataflow)
    written: dict[Value, Value] = {}
    for param, new in graph.updates:
        if new not in written and _overwrites(graph, layouts, views, param, new):
            readers = _other_readers(graph, views, param, new)
            if readers.isdisjoint(nx.descendants(flow, graph.position[new])):
                flow.add_edges_from((reader, graph.position[new]) for reader in readers)
                written[new] = param
    late = [(p, new) for p, new in graph.updates if written.get(new) != p]
    graph, layouts, copies = _append_copies(graph, layouts, [(new, layouts[p.name]) for p, new in late])
    renamed = {param: copy for (param, _), copy in zip(late, copies, strict=True)}
    graph = replace(graph, updates=tuple((p, renamed.get(p, new)) for p, new in graph.updates))
    written.update({copy: param for param, copy in renamed.items()})
    return Settled(graph, layouts, views, written, partition, _guarded_flow(graph, views, written))


def _own_results(graph: Graph, layouts: Layouts) -> tuple[Graph, Layouts]:
    """Make every output the result of a node, let no param become another, drop idle updates."""
    updates = [(p, new) for p, new in graph.updates if p != new]
    borrowed = [v for v in graph.outputs if v not in graph.producer]
    borrowed += [new for _, new in updates if new in graph.params and new not in borrowed]
    outputs = graph.outputs
    graph, layouts, copies = _append_copies(graph, layouts, [(v, layouts[v.name]) for v in borrowed])
    own = dict(zip(borrowed, copies, strict=True))
    updates = [(p, own[new] if new in graph.params else new) for p, new in updates]
    return replace(graph, outputs=tuple(own.get(v, v) for v in outputs), updates=tuple(updates)), layouts


def _append_copies(
    graph: Graph, layouts: Layouts, wanted: Iterable[tuple[Value, Layout]]
) -> tuple[Graph, Layouts, list[Value]]:
    """Add a node for each wanted copy, a value and the layout to give it; returns the copies."""
    builder, known, copies = GraphBuilder.extend(graph), dict(layouts), []
    for value, target in wanted:
        node = graph.producer.get(value)
        with builder.at(*((node.layer, node.loc) if node else ("", UNKNOWN))):
            op = Relayout(known[value.name].tag, target.tag)
            copies.append(builder.emit(op, value, name=builder.fresh(f"{value.name}.copy")))
        known[copies[-1].name] = target
    return builder.build(graph.outputs, graph.updates), known, copies


def _views(graph: Graph, layouts: Layouts) -> Mapping[Value, Value]:
    """The root of each view that may lie where its operand lies: the caller's buffers stay apart."""
    roots: dict[Value, Value] = {}
    taken = set(graph.outputs)
    for node in graph.nodes:
        if not node.op.has(Trait.VIEW):
            continue
        operand, result = node.operands[0], node.result
        root = roots.get(operand, operand)
        if not all(is_dense(layouts[v.name], v.type) for v in (operand, result)):
            continue
        if result in graph.results and (root not in graph.producer or root in taken):
            continue
        roots[result] = root
        if result in graph.outputs:
            taken.add(root)
    return roots


def _overwrites(
    graph: Graph, layouts: Layouts, views: Mapping[Value, Value], param: Value, new: Value
) -> bool:
    """Whether the node that computes `new` may write it over `param` as it runs."""
    node = graph.producer.get(new)
    if node is None or new in graph.outputs or not may_write_over(node, param):
        return False
    if layouts[param.name] != layouts[new.name]:
        return False
    return not any(o != param and views.get(o) == param for o in node.operands)


def _other_readers(graph: Graph, views: Mapping[Value, Value], param: Value, new: Value) -> set[int]:
    """Nodes that read a param, under whichever name, besides the one that computes `new`."""
    names = [param, *(view for view, root in views.items() if root == param)]
    return {i for name in names for i in graph.users[name]} - {graph.position[new]}


def _guarded_flow(graph: Graph, views: Mapping[Value, Value], written: Mapping[Value, Value]) -> nx.DiGraph:
    """The dataflow with edges from a param's readers to the node that overwrites it."""
    flow = nx.DiGraph(graph.dataflow)
    for new, param in written.items():
        readers = _other_readers(graph, views, param, new)
        flow.add_edges_from((reader, graph.position[new]) for reader in readers)
    return flow
