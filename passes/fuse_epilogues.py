"""Fuses nodes that can run as one kernel into `fused` nodes, so that intermediates stay in registers.

Stands behind autodiff and the optimizer's updates and before layouts: it sees the forward, the
backward and the update nodes alike. Which nodes belong together is decided in passes/regions.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Op
from cnnc.ops.batch_sums import BatchNormSums
from cnnc.ops.fused import Fused
from cnnc.passes.bands import band_rows
from cnnc.passes.regions import find_regions


@dataclass(frozen=True)
class FuseEpilogues:
    """Each region becomes one `fused` node whose body is a graph of its own.

    Sums of a contraction's results are cut anew, so that its kernel can add them up; so they may have other
    types than before.

    The body's first node is the anchor: a contraction, another kernel that takes an epilogue, or
    an elementwise node. What stands before a pool in the body has the anchor's shape, what stands
    behind it the pool's. Values of the region that are needed outside become results. Bodies have
    no layers and no locations, and their names count from 0, so that equal regions are equal ops;
    the fused node has the anchor's layer and location.

    %1 = conv2d(%x, @w)           %3 = fused(%x, @w, @b) {body=graph @fused(%0, %1, %2) -> (%5) {
    %2 = bias(%1, @b)                    %3 = conv2d(%0, %1)
    %3 = relu(%2)            ->          %4 = bias(%3, %2)
    %4 = max_pool2d(%3)                  %5 = relu(%4)
                                  }}
                                  %4 = max_pool2d(%3)
    """

    name: ClassVar[str] = "fuse_epilogues"

    def __call__(self, graph: Graph) -> Graph:
        regions = {region[0]: region for region in find_regions(graph).regions}
        merged = nx.DiGraph(graph.dataflow)
        for anchor, region in regions.items():
            for other in region[1:]:
                nx.contracted_nodes(merged, anchor, other, self_loops=False, copy=False)
        # a region runs where its last node stood: by then all its operands are there
        order = nx.lexicographical_topological_sort(merged, key=lambda i: max(regions.get(i, (i,))))
        nodes = [_fused(graph, regions[i]) if i in regions else graph.nodes[i] for i in order]
        left = _left(graph, regions.values(), nodes)
        return graph.with_nodes(tuple(_linked(nodes, left)))


def _linked(nodes: Iterable[Node], left: Mapping[Value, Value]) -> Iterator[Node]:
    """The nodes, waiting for values that leave regions and reading values under the types they have now."""
    values = {v.name: v for node in nodes for v in node.results}
    for node in nodes:
        operands = tuple(values.get(o.name, o) for o in node.operands)
        after = tuple(values.get(v.name, v) for v in (left.get(v, v) for v in node.after))
        yield replace(node, operands=operands, after=after)


def _left(graph: Graph, regions: Iterable[tuple[int, ...]], nodes: Iterable[Node]) -> Mapping[Value, Value]:
    """For each value that is left inside a region: one that leaves it, for whoever waits."""
    leaving = {v.name for node in nodes for v in node.results}
    values = ([v for i in region for v in graph.nodes[i].results] for region in regions)
    return {
        v: next(o for o in inner if o.name in leaving)
        for inner in values
        for v in inner
        if v.name not in leaving
    }


def _fused(graph: Graph, region: tuple[int, ...]) -> Node:
    """The node that does what the nodes with the indices `region` do."""
    members = [graph.nodes[i] for i in region]
    inside = {result for node in members for result in node.results}
    operands = list(dict.fromkeys(o for node in members for o in node.operands if o not in inside))
    results = [v for node in members for v in node.results if _leaves(graph, v, region)]
    after = tuple(dict.fromkeys(v for node in members for v in node.after if v not in inside))
    fused = Fused(_body(members, operands, results))
    made = (Value(v.name, o.type) for v, o in zip(results, fused.body.outputs, strict=True))
    return Node(fused, tuple(operands), tuple(made), members[0].layer, members[0].loc, after)


def _in_bands(node: Node, anchor: Node) -> Op:
    """The op of a node behind an anchor: sums are cut as the anchor's kernel adds them up."""
    rows = band_rows(anchor)
    if rows is None or not isinstance(node.op, BatchNormSums):
        return node.op
    return BatchNormSums(rows * anchor.result.type.shape[3])


def _leaves(graph: Graph, value: Value, region: tuple[int, ...]) -> bool:
    """Whether a value of the region is needed outside; one that nothing reads counts as needed."""
    users = graph.users[value]
    return value in graph.results or not users or not set(users) <= set(region)


def _body(members: list[Node], operands: list[Value], results: list[Value]) -> Graph:
    builder = GraphBuilder("fused")
    local = {operand: builder.input(builder.fresh(), operand.type) for operand in operands}
    for node in members:
        values = builder.emit_all(_in_bands(node, members[0]), *(local[o] for o in node.operands))
        local.update(zip(node.results, values, strict=True))
    return builder.build(local[r] for r in results)
