"""HoistMaps: what is done alike to every slice of a value is done to the value.

Autodiff slices the gradient of joined values, then goes back through each one's activation. Stands behind it:
done before slicing, that is one elementwise node, which fusion makes the epilogue of the gradient's kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ops.concat import Concat, Slice
from cnnc.ops.elementwise import Elementwise
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class HoistMaps:
    """Equal elementwise nodes of all slices of a value, and of values joined alike, become one.

    %y = concat(%a, %b) {axis=1}                      %y = concat(%a, %b) {axis=1}
    %1 = slice(%x) {axis=1, start=0, size=3}          %3.whole = map(%x, %y) {f="select(0.0 < b, a, 0.0)"}
    %2 = slice(%x) {axis=1, start=3, size=5}    ->    %3 = slice(%3.whole) {axis=1, start=0, size=3}
    %3 = map(%1, %a) {f="select(0.0 < b, a, 0.0)"}    %4 = slice(%3.whole) {axis=1, start=3, size=5}
    %4 = map(%2, %b) {f="select(0.0 < b, a, 0.0)"}
    """

    name: ClassVar[str] = "hoist_maps"

    def __call__(self, graph: Graph) -> Graph:
        groups = {node.result: group for group in _groups(graph) for node in group.maps}
        wholes: dict[Value, Value] = {}
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            group = groups.get(node.results[0])
            if group is None:
                rewriter.copy(node)
                continue
            if group.source not in wholes:
                operands = tuple(rewriter.new[o] for o in group.operands)
                stem = f"{node.result.name}.whole"
                wholes[group.source] = rewriter.emit(node, node.op, *operands, stem=stem)
            part = group.slices[group.maps.index(node)]
            rewriter.copy(node, part, (wholes[group.source],))
        return rewriter.finish()


@dataclass(frozen=True)
class _Group:
    """Equal nodes, in the order of the slices of `source` that they read, these slices, and the operands of
    the node that takes their place."""

    source: Value
    maps: tuple[Node, ...]
    slices: tuple[Slice, ...]
    operands: tuple[Value, ...]


def _groups(graph: Graph) -> Iterator[_Group]:
    slices: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Slice) and node.op.axis == 1:
            slices.setdefault(node.operands[0], []).append(node)
    joins = {node.operands: node.result for node in graph.nodes if node.op == Concat(axis=1)}
    for source, nodes in slices.items():
        group = _group(graph, source, nodes, joins)
        if group is not None and _follow(group, graph.position):
            yield group


def _group(
    graph: Graph, source: Value, nodes: list[Node], joins: Mapping[tuple[Value, ...], Value]
) -> _Group | None:
    """The nodes that read these slices, if they are alike and the slices are all there is of `source`."""
    by_start = sorted(((n.op, n.result) for n in nodes if isinstance(n.op, Slice)), key=lambda s: s[0].start)
    slices, sliced = (tuple(column) for column in zip(*by_start, strict=True))
    ends = [0, *(op.start + op.size for op in slices)]
    if [*(op.start for op in slices), source.type.shape[1]] != ends:
        return None
    if not all(map(graph.is_private, sliced)):
        return None
    maps = tuple(graph.nodes[graph.users[value][0]] for value in sliced)
    if not isinstance(maps[0].op, Elementwise) or any(node.op != maps[0].op for node in maps):
        return None
    columns = zip(*(node.operands for node in maps), strict=True)
    operands = [source if column == sliced else joins.get(column) for column in columns]
    wholes = tuple(o for o in operands if o is not None)
    return _Group(source, maps, slices, wholes) if len(wholes) == len(operands) else None


def _follow(group: _Group, position: Mapping[Value, int]) -> bool:
    """Whether all that is read is there when the first of the nodes runs."""
    first = min(position[node.result] for node in group.maps)
    return all(position.get(operand, -1) < first for operand in group.operands)
