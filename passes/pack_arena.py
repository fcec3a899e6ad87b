"""Fourth step of the buffer plan: an offset for every storage, so that none overlap while both live.

Packing is NP-hard (Garey and Johnson, "dynamic storage allocation"). As in TFLite and XLA, storages
are placed one by one into the smallest gap that the earlier ones leave; here several orders are
tried, and the storages that stick out are moved to the front until the bound is met or nothing helps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cnnc.ir.plan import aligned

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
    rivals = _rivals(intervals)
    best: tuple[int, ...] = (0,) * len(intervals)
    lowest = sum(aligned(i.nbytes) for i in intervals) + 1
    for key in ORDERS.values():
        order = _sorted(intervals, key)
        for _ in range(ROUNDS):
            offsets = _place(intervals, rivals, order)
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


def _rivals(intervals: Sequence[Interval]) -> list[list[int]]:
    """For each interval the indices of the others that are live at some node where it is."""
    return [
        [m for m, other in enumerate(intervals) if m != n and one.meets(other)]
        for n, one in enumerate(intervals)
    ]


def _place(intervals: Sequence[Interval], rivals: list[list[int]], order: list[int]) -> tuple[int, ...]:
    """Place the intervals in that order, each into the smallest gap between those it meets."""
    offsets: dict[int, int] = {}
    for n in order:
        taken = sorted(
            (offsets[m], offsets[m] + aligned(intervals[m].nbytes)) for m in rivals[n] if m in offsets
        )
        offsets[n] = _best_gap(taken, intervals[n].nbytes)
    return tuple(offsets[n] for n in range(len(intervals)))


def _best_gap(taken: list[tuple[int, int]], nbytes: int) -> int:
    """Start of the smallest gap between the taken (start, end) that holds `nbytes`, or else their end."""
    top, best, smallest = 0, None, None
    for start, end in taken:
        gap = start - top
        if gap >= nbytes and (smallest is None or gap < smallest):
            best, smallest = top, gap
        top = max(top, end)
    return top if best is None else best
