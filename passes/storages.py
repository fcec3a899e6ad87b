"""Third step of the buffer plan: which values take over another's memory, and how long memory is live.

A storage is a run of values that lie at the same place one after the other, or at one time as
views or beside each other as channels of one value. Its lifetime is counted in node indices, both
ends included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cnnc.ir.graph import Node, Value
from cnnc.ir.plan import Space, aligned, may_write_over
from cnnc.passes.channel_parts import Part
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
    """The storage of every value, where in it those lie that do not take all of it, and for each value
    that took over its place, from which."""

    of: Mapping[Value, Storage]
    parts: Mapping[Value, Part]
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
    return Storages(assignment.of, assignment.parts, assignment.in_place)


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
        self.parts = dict(settled.partition.parts)
        self.wholes: dict[Value, Storage] = {}

    def visit(self, position: int, node: Node) -> None:
        """Place the results of the node at `position`."""
        donors: list[Storage] = []
        for result in node.results:
            source = self._source(position, node, result, donors)
            if source is not None:
                self.in_place[result.name] = source.name
            if result in self.parts and (source is None or result in self.settled.partition.aliases):
                self._join(result, self._whole(self.parts[result].whole, position))
            elif source is None:
                self.start(result, position, Space.ARENA, 0)
            else:
                self._take_over(result, source)
                donors.append(self.of[source])

    def start(self, value: Value, first: int, space: Space, index: int) -> None:
        """A new storage, which `value` has from node `first` on."""
        nbytes = self.settled.layouts[value.name].nbytes(value.type)
        self._join(value, Storage(space, index, nbytes, first, first))

    def _whole(self, whole: Value, position: int) -> Storage:
        """The storage of a value that others lie in, which begins with the first of them."""
        if whole not in self.wholes:
            nbytes = self.settled.layouts[whole.name].nbytes(whole.type)
            members = self._inside(whole)
            last = max(map(self._last_use, members))
            self.wholes[whole] = Storage(Space.ARENA, 0, nbytes, position, last, members)
        return self.wholes[whole]

    def _take_over(self, result: Value, source: Value) -> None:
        """Let `result` lie where `source` does, and what lies inside it as well."""
        storage, place = self.of[source], self.parts.get(source)
        inside = self._inside(result)
        if place is not None and result not in self.settled.views:
            moved = {v: Part(place.whole, place.channel + self.parts[v].channel) for v in inside}
            self.parts.update({**moved, result: place})
        elif inside:
            self.wholes[result] = storage
        for value in (*inside, result):
            self._join(value, storage)

    def _inside(self, whole: Value) -> list[Value]:
        """The values that lie in one that no other holds, itself among them; none if it is no such value."""
        if whole not in self.parts:
            return []
        return [value for value, part in self.parts.items() if part.whole == whole]

    def _join(self, value: Value, storage: Storage) -> None:
        self.of[value] = storage
        if value not in storage.members:
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
        if result in self.settled.views or result in self.settled.partition.aliases:
            return node.operands[0]
        if result in self.settled.written:
            return self.settled.written[result]
        if result in self.parts and self.parts[result].whole != result:
            return None
        for operand in (o for o in dict.fromkeys(node.operands) if may_write_over(node, o)):
            others = [o for o in node.operands if o != operand]
            is_free = self.of[operand] not in donors and not any(self._meet(operand, o) for o in others)
            if is_free and self._dies(operand, position) and self._fits(result, operand):
                return operand
        return None

    def _dies(self, value: Value, position: int) -> bool:
        """Whether its memory in the arena holds nothing that is read behind the node at `position`."""
        storage = self.of[value]
        if storage.space is not Space.ARENA:
            return False
        return all(self._last_use(m) <= position for m in storage.members if self._meet(m, value))

    def _meet(self, one: Value, other: Value) -> bool:
        """Whether the two lie in the same memory, in part at least."""
        if self._storage(one) is not self._storage(other):
            return False
        if one not in self.parts or other not in self.parts:
            return True
        first, second = self.parts[one].channel, self.parts[other].channel
        return first < second + other.type.shape[1] and second < first + one.type.shape[1]

    def _storage(self, value: Value) -> Storage | None:
        """A value's storage, also if it is not there yet but its whole is."""
        part = self.parts.get(value)
        return self.wholes.get(part.whole) if part else self.of.get(value)

    def _fits(self, result: Value, operand: Value) -> bool:
        """Whether the result may take the operand's memory. Where that is part of another value's, it
        must not keep a storage alive of which it fills half or less."""
        if not self._alike(result, operand):
            return False
        storage, part = self.of[operand], self.parts.get(operand)
        if part is None:
            return True
        is_narrow = result.type.shape[1] < part.whole.type.shape[1]
        if result in self.graph.results or (is_narrow and result not in self.settled.partition.movable):
            return False
        last = max(self._last_use(v) for v in (result, *self._inside(result)))
        return last <= storage.last or 2 * result.type.nbytes > storage.nbytes

    def _alike(self, one: Value, other: Value) -> bool:
        layouts = self.settled.layouts
        return one.type == other.type and layouts[one.name] == layouts[other.name]
