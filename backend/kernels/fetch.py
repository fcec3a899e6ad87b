"""Reading maps ahead in the order of memory, so that they are in the second-level cache when they are needed.

Tiles of contractions visit many pixels at a time, a few channels of each, an order that processors foresee
badly: every line would be waited for, and there are too few requests under way at a time to come near the
speed of memory. Rows that are read once from end to end come at full speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from cnnc.backend.kernel.builder import Bound, BufferHandle, Coordinate, KernelBuilder
from cnnc.backend.kernel.lines import LINE


def apart(elements: int) -> int:
    """So many elements, and as many more that rows of them do not meet in the same sets of a cache: an odd
    number of lines."""
    return LINE * (-(-elements // LINE) | 1)


WAYS = 4
"""Registers that take turns."""

Extent = tuple[Bound, Bound]
"""Where a loop starts and where it stops."""


@dataclass(frozen=True)
class Fetcher:
    """Writes how maps are fetched. What is read must be used: the largest of it goes to `unread`, scratch
    memory that nobody reads."""

    k: KernelBuilder
    unread: BufferHandle

    @classmethod
    def of(cls, k: KernelBuilder) -> Fetcher:
        return cls(k, k.scratch("unread", (WAYS,)))

    def fetch(
        self,
        maps: Sequence[BufferHandle],
        images: Extent,
        rows: Extent,
        columns: Extent,
        channels: tuple[Coordinate, int],
    ) -> None:
        """Read an element of every line of maps [N,H,W,C]; `channels` are the first and how many."""
        k, (first, count) = self.k, channels
        ways = k.register("fetched", 1, (WAYS,))
        with k.loop("n", *images) as n, k.loop("y", *rows) as y, k.loop("x", *columns) as x:
            for source in maps:
                for way, channel in zip(cycle(range(WAYS)), range(0, count, LINE), strict=False):
                    ways[way,] = k.max(ways[way,], source.load((n, y, x, first + channel), 1))
        for way in range(WAYS):
            self.unread.store((way,), ways[way,])
