"""How the work of a Winograd weight gradient is divided: parts of channels by parts of maps, blocks of tiles.

Each part by a part is an iteration of the parallel nest with sums of its own, so data are transformed once
for every part of the maps and gradients once for every part of the channels. Larger parts transform less,
smaller ones occupy more threads and leave more of the second-level cache to a block of tiles; a larger block
loads and stores the sums less often. The model below counts cycles and takes the cheapest division.

Blocks fix the order of every sum and depend on the shape and the machine alone. Parts do not, and suit the
number of threads that the target expects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from cnnc.backend.kernels.winograd_order import Order
from cnnc.backend.kernels.winograd_tiles import Blocking, blockings
from cnnc.backend.kernels.winograd_transforms import effort
from cnnc.backend.target import COMMON_THREADS, Target
from cnnc.ops.winograd import Tiling

TRANSFORM_CYCLES = 3.5
"""Cycles per point of transforming a vector: loads, sums and stores."""

GROWTH = 2
"""Of the effort of transforms: products and sums, not transforms, take most of the time."""

SUM_CYCLES = 1.25
"""Cycles of adding a vector of products to the sums."""

OVERFLOW = 1.25
"""Scratch memory that may be taken beyond the second-level cache, where blocks are given: what is beyond
costs less than transforming everything for one more part."""

LONGEST_BLOCK = 64
"""Tiles of a block at most: the sums' loads and stores are paid for well before."""


@dataclass(frozen=True)
class Work:
    """A weight gradient in vectors: channels by maps, over the tiles of so many images. `block` vectors of
    maps are never parted. With several `groups` of so many images, each has a gradient of its own."""

    channel_vectors: int
    map_vectors: int
    block: int
    tiling: Tiling
    images: int
    groups: int = 1


@dataclass(frozen=True)
class Parts:
    """A division: vectors of channels and of maps in a part, and the blocks of tiles."""

    work: Work
    channel_vectors: int
    map_vectors: int
    blocking: Blocking

    @property
    def counts(self) -> tuple[int, int]:
        """Parts of the channels and of the maps."""
        return self.work.channel_vectors // self.channel_vectors, self.work.map_vectors // self.map_vectors

    @property
    def number(self) -> int:
        """Iterations of the parallel nest."""
        return self.counts[0] * self.counts[1] * self.work.groups

    def scratch_bytes(self, lanes: int) -> int:
        """Transformed data, transformed gradients, and sums, at all points."""
        tiles, channels, maps = self.blocking.tiles, self.channel_vectors * lanes, self.map_vectors * lanes
        return 4 * self.work.tiling.points * (tiles * (channels + maps) + channels * maps)

    def cycles(self, target: Target) -> float:
        """Of all iterations together: transforms, products, and the sums loaded and stored for each block."""
        work, needed = self.work, Order(self.work.tiling, self.blocking).products
        vectors = work.channel_vectors * self.counts[1] + work.map_vectors * self.counts[0]
        transforms = needed * vectors * TRANSFORM_CYCLES * target.vector_cycles * effort(work.tiling, GROWTH)
        rates = target.fma_units / (1 if target.has_fma else 2)
        products = needed / rates + SUM_CYCLES * target.vector_cycles * work.tiling.points
        products *= work.channel_vectors * target.lanes * work.map_vectors
        return work.groups * math.prod(self.blocking.blocks) * (transforms + products)


def choose_parts(target: Target, work: Work) -> Parts:
    """The cheapest division with an iteration for every thread whose scratch memory stays in the second-level
    cache, in blocks that suit a common number of threads.

    If there is none, as many parts as there are, and the least memory.
    """
    blocking = _cheapest(target, target.l2_bytes, COMMON_THREADS, _divisions(work)).blocking
    given = (parts for parts in _divisions(work) if parts.blocking == blocking)
    return _cheapest(target, OVERFLOW * target.l2_bytes, target.threads, given)


def _cheapest(target: Target, memory: float, threads: int, divisions: Iterable[Parts]) -> Parts:
    def rank(parts: Parts) -> tuple[int, float, float]:
        missing = max(0, threads - parts.number)
        excess = max(0.0, parts.scratch_bytes(target.lanes) - memory)
        turns = -(-parts.number // threads)
        return missing, excess, parts.cycles(target) * turns * threads / parts.number

    return min(divisions, key=rank)


def _divisions(work: Work) -> Iterator[Parts]:
    blocks, counts = work.map_vectors // work.block, (work.images, *work.tiling.counts)
    for channel_vectors, map_blocks, blocking in product(
        _divisors(work.channel_vectors),
        _divisors(blocks),
        blockings(counts, LONGEST_BLOCK),
    ):
        yield Parts(work, channel_vectors, map_blocks * work.block, blocking)


def _divisors(extent: int) -> tuple[int, ...]:
    return tuple(d for d in range(1, extent + 1) if extent % d == 0)
