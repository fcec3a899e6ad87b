"""Third step of the buffer plan: which values take over another's memory, and how long memory is live.

A storage is a run of values that lie at the same place one after the other, or at one time as
views. Its lifetime is counted in node indices, both ends included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cnnc.ir.graph import Node, Value
from cnnc.ir.plan import Space, aligned, is_elementwise
from cnnc.passes.settle_results import Settled


@dataclass(eq=False)
class Storage:
    """Memory that `members` share. `index` is that of the input or output."""

    space: Space
    index: int
    nbytes: int
    first: int
    last: int
    members: list[Value] = field(default_factory=list)


@dataclass(frozen=True)
class Storages:
    """The storage of every value, and for each value that took over its place, from which."""

    of: Mapping[Value, Storage]
    in_place: Mapping[str, str]

    @property
    def arena(self) -> list[Storage]:
        """The storages that need a place in the arena, in the order of their first values."""
        return [s for s in dict.fromkeys(self.of.values()) if s.space is Space.ARENA]


def assign_storages(settled: Settled) -> Storages:
    """Give every value of the graph a storage: its operand's, where an elementwise node reads an
    arena value of the same type and layout for the last time, and what `settled` decided."""
    graph = settled.graph
    assignment = _Assignment(settled)
    for space, values in ((Space.INPUT, graph.inputs), (Space.PARAM, graph.params)):
        for index, value in enumerate(values):
            assignment.start(value, 0, space, index if space is Space.INPUT else 0)
    for position, node in enumerate(graph.nodes):
        assignment.visit(position, node)
    return Storages(assignment.of, assignment.in_place)


def live_bytes_bound(storages: Storages) -> int:
    """The most bytes of arena storages alive at one node, each rounded up to the alignment."""
    changes: dict[int, int] = {}
    for storage in storages.arena:
        size = aligned(storage.nbytes)
        changes[storage.first] = changes.get(storage.first, 0) + size
        changes[storage.last + 1] = changes.get(storage.last + 1, 0) - size
    live = most = 0
    for position in sorted(changes):
        live += changes[position]
        most = max(most, live)
    return most


class _Assignment:
    """Walks the nodes in order; `of` and `in_place` are what is known so far."""

    def __init__(self, settled: Settled) -> None:
        self.settled = settled
        self.graph = settled.graph
        self.of: dict[Value, Storage] = {}
        self.in_place: dict[str, str] = {}

    def visit(self, position: int, node: Node) -> None:
        """Place the results of the node at `position`."""
        donors: list[Storage] = []
        for result in node.results:
            source = self._source(position, node, result, donors)
            if source is None:
                self.start(result, position, Space.ARENA, 0)
                continue
            self.in_place[result.name] = source.name
            donors.append(self.of[source])
            self._join(result, self.of[source])

    def start(self, value: Value, first: int, space: Space, index: int) -> None:
        """A new storage, which `value` has from node `first` on."""
        nbytes = self.settled.layouts[value.name].nbytes(value.type)
        self._join(value, Storage(space, index, nbytes, first, first))

    def _join(self, value: Value, storage: Storage) -> None:
        self.of[value] = storage
        storage.members.append(value)
        storage.last = max(storage.last, self._last_use(value))
        if value in self.graph.outputs:
            storage.space, storage.index = Space.OUTPUT, self.graph.outputs.index(value)

    def _last_use(self, value: Value) -> int:
        """Index of the last node that needs the value; one behind all nodes for results."""
        if value in self.graph.results:
            return len(self.graph.nodes)
        return max(self.graph.users[value], default=self.graph.position.get(value, 0))

    def _source(self, position: int, node: Node, result: Value, donors: list[Storage]) -> Value | None:
        """The operand or param whose memory the result takes; None if it needs its own."""
        if result in self.settled.views:
            return node.operands[0]
        if result in self.settled.written:
            return self.settled.written[result]
        if not is_elementwise(node.op):
            return None
        near = [self.of[o] for o in dict.fromkeys(node.operands)]
        for operand in node.operands:
            storage = self.of[operand]
            dies = storage.space is Space.ARENA and storage.last == position
            if dies and near.count(storage) == 1 and storage not in donors and self._alike(operand, result):
                return operand
        return None

    def _alike(self, one: Value, other: Value) -> bool:
        layouts = self.settled.layouts
        return one.type == other.type and layouts[one.name] == layouts[other.name]
