"""Where a plan needs the most memory, and what is alive there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cnnc.ir.graph import Value
from cnnc.ir.plan import Plan, Space
from cnnc.ir.types import Array


@dataclass(frozen=True)
class Held:
    """A piece of the arena, and the values in it that are still needed: several if they share it."""

    values: tuple[Value, ...]
    nbytes: int


@dataclass(frozen=True)
class Profile:
    """The bytes of arena that are alive while each node runs."""

    plan: Plan

    @cached_property
    def live_bytes(self) -> Array:
        """One number per node."""
        starts, ends, first, last = self._table
        return np.array(
            [
                _covered(starts[alive], ends[alive])
                for position in range(len(self.plan.graph.nodes))
                for alive in ((first <= position) & (position <= last),)
            ],
            np.int64,
        )

    @property
    def peak(self) -> int:
        """Index of the first node with the most."""
        return int(np.argmax(self.live_bytes))

    def held(self, position: int) -> tuple[Held, ...]:
        """What is alive while the node at `position` runs, the largest first."""
        _, _, first, last = self._table
        alive = np.flatnonzero((first <= position) & (position <= last))
        pieces: list[tuple[list[Value], int, int]] = []
        for value in (self._values[i] for i in alive):
            place = self.plan.placement(value)
            if pieces and place.offset < pieces[-1][2]:
                values, start, end = pieces[-1]
                pieces[-1] = ([*values, value], start, max(end, place.end))
            else:
                pieces.append(([value], place.offset, place.end))
        found = (Held(tuple(values), end - start) for values, start, end in pieces)
        return tuple(sorted(found, key=lambda held: -held.nbytes))

    @cached_property
    def _values(self) -> tuple[Value, ...]:
        """Those in the arena, by where they begin."""
        places = self.plan.placements
        values = (v for v in self.plan.graph.producer if places[v.name].space is Space.ARENA)
        return tuple(sorted(values, key=lambda v: places[v.name].offset))

    @cached_property
    def _table(self) -> tuple[Array, Array, Array, Array]:
        """Of these values: where they begin and end, and the first and last node that needs them."""
        graph, places = self.plan.graph, [self.plan.placement(v) for v in self._values]
        last = [len(graph.nodes) if v in graph.results else self._last_use(v) for v in self._values]
        starts, ends = ([p.offset for p in places], [p.end for p in places])
        columns = (starts, ends, [graph.position[v] for v in self._values], last)
        first, second, third, fourth = (np.array(column, np.int64) for column in columns)
        return first, second, third, fourth

    def _last_use(self, value: Value) -> int:
        graph = self.plan.graph
        return max(graph.users[value], default=graph.position[value])


def _covered(starts: Array, ends: Array) -> int:
    """Bytes that lie in one of the pieces at least, which are sorted by their starts."""
    before = np.concatenate(([0], np.maximum.accumulate(ends)[:-1])) if len(ends) else ends
    return int(np.maximum(ends - np.maximum(starts, before), 0).sum())
