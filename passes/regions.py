"""Finds which nodes may run as one kernel: an anchor and the epilogue applied to its result.

Used by passes/fuse_epilogues.py. A region grows from its anchor one node at a time; `_refusal`
states every condition for taking one more, so that the report can give the same reasons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Op, Trait
from cnnc.ir.types import TensorType
from cnnc.ops.conv import Conv2dInputGrad
from cnnc.ops.dense import DenseInputGrad
from cnnc.ops.strassen import StrassenConv2d
from cnnc.ops.winograd import WinogradConv2d
from cnnc.passes.bands import band_rows

LARGEST_WINDOW = 9
"""Elements of a pooling window that is computed with a contraction: a whole window is a register tile, and
12 accumulators are what the targets with fewest registers have. A global mean is better off by itself."""


@dataclass(frozen=True)
class Refusal:
    """Why `consumer`, which reads `value` out of a region, was not fused into it."""

    value: str
    consumer: str
    reason: str

    def __str__(self) -> str:
        return f"%{self.value} -> {self.consumer}: {self.reason}"


@dataclass(frozen=True)
class FusionReport:
    """The regions, as node indices in the order in which a body runs them, and what was refused."""

    regions: tuple[tuple[int, ...], ...]
    growth: _Growth

    @cached_property
    def refusals(self) -> tuple[Refusal, ...]:
        return tuple(self.growth.refusals())


def find_regions(graph: Graph) -> FusionReport:
    """Greedily partition the nodes: contractions take epilogues first, then other kernels that
    can apply one, and what elementwise nodes are left gather in regions of their own."""
    growth = _Growth(graph)
    anchors = (i for i, n in enumerate(graph.nodes) if _is_anchor(n))
    for index in sorted(anchors, key=lambda i: _turn(graph.nodes[i].op)):
        if index not in growth.owner:
            growth.grow(index)
    regions = sorted(m for m in map(tuple, growth.members.values()) if len(m) > 1)
    return FusionReport(tuple(regions), growth)


def _is_anchor(node: Node) -> bool:
    return any(node.op.has(trait) for trait in (Trait.EPILOGUE, Trait.UPDATE)) and len(node.results) == 1


def _turn(op: Op) -> int:
    """Elementwise nodes wait for the last turn: they would rather be an epilogue."""
    if op.has(Trait.CONTRACTION):
        return 0
    return 2 if op.has(Trait.ELEMENTWISE) else 1


class _Growth:
    """The partition while it grows. `flow` is the dataflow with every region shrunk to its anchor,
    `shrunk` says which nodes an anchor stands for."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.flow = nx.DiGraph(graph.dataflow)
        self.owner: dict[int, int] = {}
        self.members: dict[int, list[int]] = {}
        self.shrunk: dict[int, list[int]] = {}

    def grow(self, anchor: int) -> None:
        """Make a region of `anchor` and its elementwise neighbours, and for a contraction of a pool
        and the elementwise nodes behind the pool. The members stand in that order."""
        self.owner[anchor] = anchor
        self.members[anchor] = [anchor]
        taken = self._absorb(anchor, self.shape(anchor))
        is_elementwise = self.graph.nodes[anchor].op.has(Trait.ELEMENTWISE)
        self.members[anchor] = sorted([anchor, *taken]) if is_elementwise else [anchor, *sorted(taken)]
        pool = next((c for c in self._readers(anchor) if self._pool_refusal(anchor, c) is None), None)
        if pool is not None:
            self._merge(anchor, pool)
            self.members[anchor].append(pool)
            self.members[anchor] += sorted(self._absorb(anchor, self.shape(anchor)))

    def shape(self, anchor: int) -> TensorType:
        """The type that epilogue nodes must have: the pool's if the region has one, else the anchor's."""
        nodes = [self.graph.nodes[m] for m in self.members[anchor]]
        pool = next((n for n in nodes if n.op.has(Trait.POOLING)), self.graph.nodes[anchor])
        return pool.result.type

    def refusals(self) -> Iterator[Refusal]:
        """For each value that leaves a region towards a node that could be fused: why it was not."""
        for anchor, members in self.members.items():
            for value in (v for m in members for v in self.graph.nodes[m].results):
                for reader in self.graph.users[value]:
                    reason = self._report(anchor, reader, value)
                    if reader not in members and reason is not None:
                        yield Refusal(value.name, _label(self.graph.nodes[reader]), reason)

    def _report(self, anchor: int, reader: int, value: Value) -> str | None:
        node = self.graph.nodes[reader]
        op, is_summed = node.op, node.op.has(Trait.SUMS) and node.operands[0] == value
        if op.has(Trait.ELEMENTWISE) or is_summed:
            return self._refusal(anchor, reader, self.shape(anchor))
        return self._pool_refusal(anchor, reader) if op.has(Trait.POOLING) else None

    def _absorb(self, anchor: int, type: TensorType) -> list[int]:
        """Take elementwise readers of the region and what they read besides, until none is left that may
        be taken. Returns the nodes taken."""
        absorbed: list[int] = []
        while True:
            near = self._readers(anchor) + self._sources(anchor)
            taken = next((n for n in near if self._refusal(anchor, n, type) is None), None)
            if taken is None:
                return absorbed
            self._merge(anchor, taken)
            absorbed.append(taken)

    def _readers(self, anchor: int) -> list[int]:
        """Nodes that read a value of the region; one that merely waits for it is none."""
        return sorted(n for n in self.flow.successors(anchor) if self._reads(n, anchor))

    def _sources(self, anchor: int) -> list[int]:
        """Nodes of which the region reads a value: into an elementwise region they may come in any case,
        behind another anchor if its epilogue alone reads them."""
        sources = sorted(n for n in self.flow.predecessors(anchor) if self._reads(anchor, n))
        if self.graph.nodes[anchor].op.has(Trait.ELEMENTWISE):
            return sources
        epilogue = set(self.shrunk.get(anchor, ()))
        return [n for n in sources if self._serves(n, epilogue)]

    def _serves(self, source: int, epilogue: set[int]) -> bool:
        """Whether the epilogue alone wants what a node computes, and no other anchor could finish it."""
        node, producer = self.graph.nodes[source], self.graph.producer
        users = {user for v in node.results for user in self.graph.users[v]}
        if not users <= epilogue or any(v in self.graph.results for v in node.results):
            return False
        before = [producer[o].op for o in node.operands if o in producer]
        return not any(op.has(Trait.EPILOGUE) and not op.has(Trait.ELEMENTWISE) for op in before)

    def _reads(self, reader: int, source: int) -> bool:
        """Whether there is a value between two nodes of the flow, not just an order."""
        values = (v for n in (source, *self.shrunk.get(source, ())) for v in self.graph.nodes[n].results)
        return any(self.owner.get(user, user) == reader for v in values for user in self.graph.users[v])

    def _refusal(self, anchor: int, candidate: int, type: TensorType) -> str | None:
        """Why `candidate`, an elementwise node or sums, must stay out of the region; None if it may join."""
        node = self.graph.nodes[candidate]
        if node.op.has(Trait.SUMS):
            return (
                self._sums_refusal(anchor, node) or self._cycle(anchor, candidate) or self._owned(candidate)
            )
        if not node.op.has(Trait.ELEMENTWISE):
            return "it is not elementwise"
        if node.result.type != type:
            return f"its result is {node.result.type}, the region's is {type}"
        if self.graph.nodes[anchor].op.has(Trait.UPDATE) and not _reads_wholes(node):
            return "it has channel operands, which an update's kernel does not read"
        if isinstance(self.graph.nodes[anchor].op, DenseInputGrad) and not _reads_wholes(node):
            return "it has channel operands, and the kernel sees an image as one row"
        return self._cycle(anchor, candidate) or self._owned(candidate)

    def _sums_refusal(self, anchor: int, sums: Node) -> str | None:
        """Why the kernel of a region cannot add up sums of a gradient; None if it can."""
        anchor_node, dy = self.graph.nodes[anchor], sums.operands[0]
        if self.owner.get(self.graph.position.get(dy, -1)) != anchor:
            return "its gradient is none of the region's"
        if band_rows(anchor_node) is None or dy.type != anchor_node.result.type:
            return "the region's kernel does not add up its results"
        if not set(sums.results).isdisjoint(self.graph.results):
            return "its parts are asked for"
        return None

    def _pool_refusal(self, anchor: int, candidate: int) -> str | None:
        """Why the pool `candidate` must stay out of the region; None if it may join."""
        node, anchor_node = self.graph.nodes[candidate], self.graph.nodes[anchor]
        if not node.op.has(Trait.POOLING):
            return "it is no pooling"
        if not all(anchor_node.op.has(trait) for trait in (Trait.CONTRACTION, Trait.EPILOGUE)):
            return "only a contraction takes a pool"
        if self.shape(anchor) != anchor_node.result.type:
            return "the region has a pool already"
        if any(self.graph.nodes[m].op.has(Trait.SUMS) for m in self.members[anchor]):
            return "the region adds up what it computes"
        pooled = node.operands[0]
        if not _tiles(node.op, pooled.type) or pooled.type != anchor_node.result.type:
            return f"its windows do not tile {pooled.type}"
        if _elements(node.op) > LARGEST_WINDOW:
            return f"its windows have {_elements(node.op)} elements, more than registers hold beside the rest"
        if _cuts(anchor_node.op, node.op):
            return "its windows do not tile the tiles of the algorithm"
        return self._cycle(anchor, candidate) or self._owned(candidate)

    def _cycle(self, anchor: int, candidate: int) -> str | None:
        """Refuses if a path between the region and the candidate leads through a third node, which
        would have to run both before and after the region."""
        candidate = self.owner.get(candidate, candidate)
        for middle in sorted(self.flow.predecessors(candidate)):
            if middle != anchor and nx.has_path(self.flow, anchor, middle):
                return f"it also needs {_label(self.graph.nodes[middle])}, which needs the region"
        produces = self.flow.has_edge(candidate, anchor)
        for middle in sorted(self.flow.successors(candidate)) if produces else []:
            if middle != anchor and nx.has_path(self.flow, middle, anchor):
                return f"{_label(self.graph.nodes[middle])} needs it, and the region needs that"
        return None

    def _owned(self, candidate: int) -> str | None:
        """Refuses a node that another region has."""
        if candidate not in self.owner:
            return None
        return f"it belongs to the region of {_label(self.graph.nodes[self.owner[candidate]])}"

    def _merge(self, anchor: int, taken: int) -> None:
        nx.contracted_nodes(self.flow, anchor, taken, self_loops=False, copy=False)
        self.owner[taken] = anchor
        self.shrunk.setdefault(anchor, []).append(taken)


def _reads_wholes(node: Node) -> bool:
    """Whether an elementwise node reads nothing but scalars and tensors of its result's type."""
    return all(o.type == node.result.type or not o.type.rank for o in node.operands)


def _label(node: Node) -> str:
    """`relu %2`, for reasons."""
    return f"{node.op.name} %{node.results[0].name}"


def _elements(pool: Op) -> int:
    """Of a window."""
    kernel = pool.attributes["kernel"]
    assert isinstance(kernel, tuple)
    return math.prod(kernel)


def _cuts(op: Op, pool: Op) -> bool:
    """Whether the tiles in which `op` computes its result part a window of the pooling."""
    kernel = pool.attributes["kernel"]
    if isinstance(op, Conv2dInputGrad):
        return op.stride != (1, 1)  # neighbours are computed apart
    if isinstance(op, StrassenConv2d):
        return True  # pixels are cut without regard to rows
    if not isinstance(op, WinogradConv2d) or not isinstance(kernel, tuple):
        return False
    return any(tile % extent for tile, extent in zip(op.tile, kernel, strict=True))


def _tiles(op: Op, image: TensorType) -> bool:
    """Whether a pooling's windows neither overlap, nor leave gaps, nor read padding."""
    kernel, stride, pad = (op.attributes[a] for a in ("kernel", "stride", "pad"))
    if not isinstance(kernel, tuple) or kernel != stride or pad != (0, 0, 0, 0):
        return False
    return all(size % step == 0 for size, step in zip(image.shape[2:], kernel, strict=True))
