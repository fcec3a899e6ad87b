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
from functools import cache, cached_property
from itertools import product

from cnnc.backend.kernels.fetch import apart
from cnnc.backend.kernels.tiles import RegisterTile, split, step_cycles
from cnnc.backend.kernels.weight_grad_parts import CACHED, LINE, rows_of_a_tile, shared_cost
from cnnc.backend.target import Target
from cnnc.ops.strassen import PRODUCTS

MOST_VECTORS = 3
"""Of a tile along the maps."""

LEAST_PAIRS = 24
"""Of a chunk: fewer do not pay for the products' loads and stores."""

FILLED = 0.67
"""Of what products leave of the second-level cache: the share that a chunk fills."""

TILE_CYCLES = 2.0
"""To begin and to end a tile, most of which is hidden behind the products of others."""

SUM_CYCLES = 0.3
"""To add a vector to a product's sums, likewise."""

QUARTERS_CYCLES = 15.0
"""To clear a vector of all products, and to make those of the four quarters of them."""

EFFICIENCY, WIDE_EFFICIENCY = 0.99, 0.90
"""Share of the peak that products reach beside what is counted here; the second on wide targets."""

WAITING = 0.2
"""Of the time that maps take to come from memory."""


@dataclass(frozen=True)
class Work:
    """Halves of a weight gradient of each of `strips`: `pairs` of pixels, `channels` and `maps`, both of a
    half, by vectors of `lanes` maps that lie in blocks of `block`."""

    strips: int
    pairs: int
    channels: int
    maps: int
    lanes: int
    block: int


@dataclass(frozen=True)
class Parts:
    """A division of a half: parts of `channels` by `vectors` of maps."""

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
            key=lambda widths: (sum(self._step_cycles(width) for width in widths), widths[0] == 1),
        )

    def rows(self, width: int) -> tuple[int, ...]:
        """Channels of the register tiles of so many vectors."""
        return _rows(self.target, self.channels, width)

    def _step_cycles(self, width: int) -> float:
        return _step_cycles(self.target, self.channels, width)

    @cached_property
    def pairs(self) -> int:
        """Of a chunk. Behind the last pair of all, zeros fill the last chunk: of the sizes at hand that with
        the least work."""
        most = self._most_pairs
        fewest = -(-self.work.pairs // most)
        sizes = {-(-self.work.pairs // number) for number in range(fewest, fewest + fewest // 2 + 1)}
        return min(sizes, key=lambda pairs: (self._product_cycles(pairs), -pairs))

    @property
    def chunks(self) -> int:
        return -(-self.work.pairs // self.pairs)

    @property
    def _most_pairs(self) -> int:
        """Pairs of which the first-level cache holds the factors of a tile, and the second-level cache those
        of all products, what they are made of, and the products."""
        target, lines = self.target, 1 + -(-4 * max(self.widths) * self.work.lanes // LINE)
        pair = sum(4 * (PRODUCTS * apart(size) + 4 * size) for size in (self.channels, self.maps))
        free = max(target.l2_bytes // 4, target.l2_bytes - self.sums_bytes)
        return max(LEAST_PAIRS, min(target.l1_bytes // 2 // (LINE * lines), int(FILLED * free / pair)))

    def _product_cycles(self, pairs: int) -> float:
        """Of one product, by chunks of so many pairs."""
        efficiency = WIDE_EFFICIENCY if self.target.is_wide else EFFICIENCY
        steps = pairs * sum(self._step_cycles(width) for width in self.widths) / efficiency
        tiles = sum(len(self.rows(width)) for width in self.widths)
        sums = tiles * TILE_CYCLES + self.channels * self.vectors * SUM_CYCLES * self.target.vector_cycles
        return -(-self.work.pairs // pairs) * (steps + sums)

    @cached_property
    def cycles(self) -> float:
        """Of one iteration."""
        work, pairs = self.work, self.work.pairs
        factors = pairs * PRODUCTS * (-(-self.channels // self.target.lanes) + self.vectors)
        besides = (factors + QUARTERS_CYCLES * self.channels * self.vectors) * self.target.vector_cycles
        computed = PRODUCTS * self._product_cycles(self.pairs) + besides
        maps = 16 * work.strips * pairs * (work.channels + work.maps)
        if maps <= CACHED * self.target.l2_bytes:
            return computed
        read = 16 * pairs * (self.channels + self.maps) / self.target.memory_bytes_per_cycle
        return max(computed, read) + WAITING * read

    @property
    def cost(self) -> float:
        """Cycles on one thread and, times their number, on many."""
        return shared_cost(self.number, self.cycles)


@cache
def _rows(target: Target, channels: int, width: int) -> tuple[int, ...]:
    return split(channels, rows_of_a_tile(target, channels, width))


@cache
def _step_cycles(target: Target, channels: int, width: int) -> float:
    """Of one pair, for all channels by so many vectors."""
    return sum(step_cycles(target, RegisterTile(rows, width)) for rows in _rows(target, channels, width))


@cache
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
