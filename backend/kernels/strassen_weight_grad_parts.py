"""How the work of Strassen's weight gradient is divided: parts of the weights by chunks of pairs of pixels.

An iteration of the parallel nest computes a part: the same range of both halves of the channels by the same
of both halves of the maps. It passes over the pairs of pixels a chunk at a time, and writes the sums of
halves of a chunk to scratch memory, from where the tiles of all seven products read them; what these add up
stays in the second-level cache. Larger parts form fewer sums of halves, and chunks of more pairs add to the
products less often. Sizes depend on the target and the shape alone, hence so does the order of every sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from cnnc.backend.kernels.fetch import apart
from cnnc.backend.kernels.tiles import RegisterTile, split, step_cycles
from cnnc.backend.kernels.weight_grad_parts import CACHED, LINE, SET_BYTES, THREADS, rows_of_a_tile
from cnnc.backend.target import Target
from cnnc.ops.strassen import PRODUCTS

SUMS = 4
"""Of the quarters of each side."""

GIVEN = ((0, 0), (1, 0), (1, 1))
"""The quarters of each side that products read as they are: halves of pixels, then of channels or maps."""

MOST_VECTORS = 3
"""Of a tile along the maps."""

LEAST_PAIRS = 24
"""Of a chunk: fewer do not pay for the products' loads and stores."""

PAIR_LINES = 192
"""Pairs whose lines the first-level cache should hold, where they lie in wide rows: with fewer the quarters
are copied, so that rows of tiles do not meet in the same sets."""

TILE_CYCLES = 2.0
"""To begin and to end a tile, most of which is hidden behind the products of others."""

SUM_CYCLES = 0.3
"""To add a vector to a product's sums, likewise."""

EFFICIENCY, WIDE_EFFICIENCY = 0.99, 0.95
"""Share of the peak that products reach beside what is counted here; the second by vectors of over 32 bytes."""

WAITING = 0.2
"""Of the time that maps take to come from memory."""


@dataclass(frozen=True)
class Work:
    """Halves of a weight gradient of each of `strips`: `pairs` of pixels, `channels` and `maps`, both of a
    half, by vectors of `lanes` maps that lie in blocks of `block`. A source that is `made` by a prologue is
    copied. `pitches` are the elements between neighbouring pixels of the source and of dy."""

    strips: int
    pairs: int
    channels: int
    maps: int
    lanes: int
    block: int
    made: bool
    pitches: tuple[int, int]


@dataclass(frozen=True)
class Parts:
    """A division of a half: parts of `channels` by `vectors` of maps, in chunks of at most `chunk` pairs."""

    target: Target
    work: Work
    channels: int
    vectors: int

    @property
    def maps(self) -> int:
        return self.vectors * self.work.lanes

    @property
    def counts(self) -> tuple[int, int]:
        """Parts along channels and maps."""
        return self.work.channels // self.channels, self.work.maps // self.maps

    @property
    def number(self) -> int:
        """Iterations of the parallel nest."""
        return self.work.strips * self.counts[0] * self.counts[1]

    @property
    def sums_bytes(self) -> int:
        return 4 * PRODUCTS * self.channels * self.maps

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Vectors of the register tiles along the maps."""
        return min(
            (split(self.vectors, most) for most in range(1, min(MOST_VECTORS, self.vectors) + 1)),
            key=lambda widths: sum(self._step_cycles(width) for width in widths),
        )

    def rows(self, width: int) -> tuple[int, ...]:
        """Channels of the register tiles of so many vectors."""
        return split(self.channels, rows_of_a_tile(self.target, self.channels, width))

    def _step_cycles(self, width: int) -> float:
        return sum(step_cycles(self.target, RegisterTile(rows, width)) for rows in self.rows(width))

    @cached_property
    def copied(self) -> tuple[bool, bool]:
        """Whether the given quarters of the source and of dy are copied beside their sums."""
        crowded = (_held(self.target, pitch) < PAIR_LINES for pitch in self.work.pitches)
        source, gradients = (is_crowded and self.work.pairs > LEAST_PAIRS for is_crowded in crowded)
        return source or self.work.made, gradients

    def kept(self, side: int) -> int:
        """Rows in scratch memory for each pair."""
        return SUMS + len(GIVEN) if self.copied[side] else SUMS

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Pairs of each chunk, of at most two sizes."""
        target, sizes = self.target, (self.channels, self.maps)
        lines = 1 + -(-4 * max(self.widths) * self.work.lanes // LINE)
        pair = sum(4 * (self.kept(side) * apart(size) + 4 * size) for side, size in enumerate(sizes))
        free = max(target.l2_bytes // 4, target.l2_bytes - self.sums_bytes)
        limits = target.l1_bytes // 2 // (LINE * lines), 2 * free // (3 * pair)
        return split(self.work.pairs, max(LEAST_PAIRS, min(limits)))

    @cached_property
    def cycles(self) -> float:
        """Of one iteration."""
        work, pairs, chunks = self.work, self.work.pairs, len(self.chunks)
        tiles = sum(len(self.rows(width)) for width in self.widths)
        efficiency = EFFICIENCY if self.target.lanes <= 8 else WIDE_EFFICIENCY
        products = sum(self._step_cycles(width) for width in self.widths) * pairs / efficiency
        sums = chunks * (tiles * TILE_CYCLES + self.channels * self.vectors * SUM_CYCLES)
        sides = (-(-self.channels // self.target.lanes), 0), (self.vectors, 1)
        formed = pairs * sum(vectors * self.kept(side) for vectors, side in sides)
        computed = PRODUCTS * (products + sums) + formed
        maps = 16 * work.strips * pairs * (work.channels + work.maps)
        if maps <= CACHED * self.target.l2_bytes:
            return computed
        read = 16 * pairs * (self.channels + self.maps) / self.target.memory_bytes_per_cycle
        return max(computed, read) + WAITING * read

    @property
    def cost(self) -> float:
        """Cycles on one thread and, times their number, on many."""
        turns = -(-self.number // THREADS) * THREADS
        return (self.number + turns) * self.cycles


def _held(target: Target, pitch: int) -> int:
    """Of how many pixels so far apart the first-level cache holds a line."""
    sets = SET_BYTES // LINE
    step = min(sets, (4 * pitch & -(4 * pitch)) // LINE)
    return target.l1_bytes // LINE // max(1, step)


def choose_parts(target: Target, work: Work) -> Parts:
    """The cheapest division whose sums fill half of the second-level cache at most."""

    def rank(parts: Parts) -> tuple[int, float, int]:
        return max(0, parts.sums_bytes - target.l2_bytes // 2), parts.cost, parts.number

    return min(_divisions(target, work), key=rank)


def _divisions(target: Target, work: Work) -> Iterator[Parts]:
    """Equal parts; of several along the maps each is whole blocks."""
    vectors = work.maps // work.lanes
    along = [c for c in range(1, work.channels + 1) if work.channels % c == 0]
    across = [v for v in range(1, vectors + 1) if vectors % v == 0 and v * work.lanes % work.block == 0]
    for channels, width in product(along, {*across, vectors}):
        yield Parts(target, work, channels, width)
