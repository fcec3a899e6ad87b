"""How Strassen's products are cut: maps into blocks, pixels into tiles, these into parts; and what it costs.

An iteration computes a part of the tiles of an image for a share of the blocks of maps, or one part after the
other if it has images whole. It writes the sums of halves for the tiles of a part to scratch memory, which
should stay in the second-level cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from cnnc.backend.kernels.fetch import apart
from cnnc.backend.kernels.tiles import LONG_ROW, RegisterTile, pixels_for, shape_for, split, step_cycles
from cnnc.backend.kernels.weight_grad_parts import CACHED
from cnnc.backend.target import Target
from cnnc.ops.strassen import PRODUCTS

SUMS = 4
"""S1 to S4."""

GIVEN = ((0, 0), (0, 1), (1, 1))
"""The quarters of the source that products read as they are: halves of pixels, then of channels."""

MOST_VECTORS = 3
"""Of a block of maps: wider tiles have so few rows that weights are wanted faster than the second-level cache
delivers them."""

EFFICIENCY, WIDE_EFFICIENCY = 0.97, 0.91
"""Share of the peak that products reach beside what is counted here; the second on wide targets, which take
half the time for the same pixels and weights and wait for them more of it."""

SUMMING = 0.1
"""What sums cost, in products of a block of maps."""

SUM_CYCLES = 4.0
"""To add four vectors of channels to sums and to store these."""

TILE_BYTES_PER_CYCLE = 44.0
"""How fast tiles are finished: results stored, and kept sums stored and added."""

LOOP_CYCLES = 10.0
"""To begin and to end the loop of a product."""

NARROW = 1.25
"""What products by tiles of one vector take more, where every FMA loads an element as well."""

WAITING = 0.025
"""Cycles for a byte of maps that come from memory and go there, for each byte a cycle: the more memory has to
do, the more of it is waited for."""


def halves_lanes(target: Target, maps: int) -> int:
    """Lanes of vectors that divide a half of so many maps."""
    lanes = target.lanes
    while maps % lanes:
        lanes //= 2
    return lanes


def halves_block(target: Target, maps: int) -> int:
    """Maps of a block: as wide as the best register tile of those whose blocks divide a half of `maps`."""
    lanes = halves_lanes(target, maps)
    vectors, most = maps // lanes, MOST_VECTORS if lanes == target.lanes else 1
    dividing = (v for v in range(1, most + 1) if vectors % v == 0)
    return lanes * min(dividing, key=lambda v: (shape_for(target, LONG_ROW, v).cycles / v, v == 1, v))


@dataclass(frozen=True)
class Work:
    """Halves of a product: `pixels` of each of the images (of an odd number the larger half), channels and
    maps of a half, and the maps of a block. A source that is `made` by a prologue is kept beside its sums."""

    images: int
    pixels: int
    channels: int
    maps: int
    block: int
    made: bool = False

    @property
    def kept(self) -> int:
        """Rows in scratch memory for each pixel of a half."""
        return SUMS + len(GIVEN) if self.made else SUMS

    @property
    def blocks(self) -> int:
        return self.maps // self.block

    @property
    def weight_bytes(self) -> int:
        return 4 * PRODUCTS * self.channels * self.maps

    def tile(self, target: Target) -> RegisterTile:
        """The register tile of pixels by vectors of maps; the last along a half may have fewer pixels."""
        vectors = self.block // halves_lanes(target, self.maps)
        rows = split(self.pixels, pixels_for(target, self.pixels, vectors))[0]
        return RegisterTile(rows, vectors)

    @property
    def pitch(self) -> int:
        """Elements of a row of sums."""
        return apart(self.channels)


@dataclass(frozen=True)
class Cut:
    """The `tiles` of a half have `rows` each, the last may have fewer; a part is so many tiles, and a share
    so many blocks of maps."""

    rows: int
    tiles: int
    part: int
    share: int

    @property
    def parts(self) -> int:
        return -(-self.tiles // self.part)


def cut(target: Target, work: Work, images: int, whole: bool = False) -> Cut:
    """Parts whose sums leave most of the cache to others, and shares, so that the thread with the most work
    has the least; of equal ones the fewest. `images` are those of one call at least; a `whole` one has all of
    its parts in one iteration."""
    rows, blocks = work.tile(target).pixels, work.blocks
    tiles, row = -(-work.pixels // rows), 4 * work.kept * work.pitch
    fitting = max(1, target.l2_bytes // 16 // (row * rows))

    def most(parts: int, shares: int) -> float:
        together = tiles if whole else -(-tiles // parts)
        iterations = images * shares * (1 if whole else parts)
        return -(-iterations // target.threads) * together * (-(-blocks // shares) + SUMMING)

    parts, shares = min(
        product(range(-(-tiles // fitting), tiles + 1), range(1, min(blocks, 2 * target.threads) + 1)),
        key=lambda cuts: (most(*cuts), cuts[0] * cuts[1]),
    )
    return Cut(rows, tiles, -(-tiles // parts), -(-blocks // shares))


def cycles(target: Target, work: Work) -> float:
    """Of all images on one core."""
    tile = work.tile(target)
    finished = 4 * tile.pixels * work.block / TILE_BYTES_PER_CYCLE * target.vector_cycles
    each = work.channels * step_cycles(target, tile) + LOOP_CYCLES + finished
    sums = SUM_CYCLES * target.vector_cycles * tile.pixels * -(-work.channels // target.lanes)
    if tile.vectors == 1 and target.folds_broadcast:
        each *= NARROW
    efficiency = WIDE_EFFICIENCY if target.is_wide else EFFICIENCY
    tiles = work.images * -(-work.pixels // tile.pixels)
    total = tiles * (work.blocks * PRODUCTS * each + sums) / efficiency
    maps = 16 * work.images * work.pixels * (work.channels + work.maps)
    return total + (WAITING * maps**2 / total if maps > CACHED * target.l2_bytes else 0.0)
