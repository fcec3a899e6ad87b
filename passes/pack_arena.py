"""Fourth step of the buffer plan: an offset for every storage, so that none overlap while both live.

Packing is NP-hard (Garey and Johnson, "dynamic storage allocation"). As in TFLite and XLA, storages
are placed one by one into the smallest gap that the earlier ones leave; here several orders are
tried, and the storages that stick out are moved to the front until the bound is met or nothing helps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from cnnc.ir.plan import aligned
from cnnc.ir.types import Array

ROUNDS = 8
"""How often the storages that stick out are moved to the front of an order."""


@dataclass(frozen=True)
class Interval:
    """`nbytes` live from node `first` to node `last`, both included."""

    first: int
    last: int
    nbytes: int

    def meets(self, other: Interval) -> bool:
        """Whether both are live at some node."""
        return self.first <= other.last and other.first <= self.last


_Key = Callable[[Interval], tuple[int, ...]]

ORDERS: Mapping[str, _Key] = MappingProxyType(
    {
        "largest first": lambda i: (-i.nbytes, i.first),
        "longest first": lambda i: (i.first - i.last, -i.nbytes),
        "largest area first": lambda i: (-i.nbytes * (1 + i.last - i.first), i.first),
        "earliest first": lambda i: (i.first, -i.nbytes),
        "latest first": lambda i: (-i.last, -i.nbytes),
    }
)
"""Orders of placement; ties go by position, so that the result is the same in every run."""


def pack(intervals: Sequence[Interval], bound: int) -> tuple[int, ...]:
    """An offset in bytes for each interval; stops searching when all of them end below `bound`."""
    best: tuple[int, ...] = (0,) * len(intervals)
    lowest = sum(aligned(i.nbytes) for i in intervals) + 1
    for key in ORDERS.values():
        order = _sorted(intervals, key)
        for _ in range(ROUNDS):
            offsets = _place(intervals, order)
            height = packed_bytes(intervals, offsets)
            if height < lowest:
                best, lowest = offsets, height
            if lowest <= bound:
                return best
            sticking_out = [n for n in order if offsets[n] + aligned(intervals[n].nbytes) == height]
            order = sticking_out + [n for n in order if n not in sticking_out]
    return best


def packed_bytes(intervals: Sequence[Interval], offsets: Sequence[int]) -> int:
    """Size of the arena: the highest end of an interval, rounded up to the alignment."""
    ends = (offset + aligned(i.nbytes) for i, offset in zip(intervals, offsets, strict=True))
    return max(ends, default=0)


def _sorted(intervals: Sequence[Interval], key: _Key) -> list[int]:
    return sorted(range(len(intervals)), key=lambda n: (*key(intervals[n]), n))


def _place(intervals: Sequence[Interval], order: list[int]) -> tuple[int, ...]:
    """Place the intervals in that order, each into the smallest gap between those it meets."""
    offsets = [0] * len(intervals)
    table = np.empty((4, len(intervals)), np.int64)
    for count, n in enumerate(order):
        one, (starts, ends, first, last) = intervals[n], table[:, :count]
        meets = (first <= one.last) & (last >= one.first)
        offsets[n] = _best_gap(starts[meets], ends[meets], one.nbytes)
        at = int(np.searchsorted(starts, offsets[n]))
        table[:, at + 1 : count + 1] = table[:, at:count].copy()
        table[:, at] = offsets[n], offsets[n] + aligned(one.nbytes), one.first, one.last
    return tuple(offsets)


def _best_gap(starts: Array, ends: Array, nbytes: int) -> int:
    """Start of the smallest gap of `nbytes` or more before and between what is taken, else its end.

    What is taken is sorted by its starts.
    """
    tops = np.maximum.accumulate(np.concatenate(([0], ends)))
    gaps = starts - tops[:-1]
    fitting = np.flatnonzero(gaps >= nbytes)
    return int(tops[fitting[np.argmin(gaps[fitting])]] if fitting.size else tops[-1])
