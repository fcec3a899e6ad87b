"""How the work of a Winograd convolution is divided: blocks of tiles, parts and panels of the maps.

A block of tiles by a part of the maps is an iteration of the parallel nest. It transforms its data once,
then computes a panel of the part at a time. Larger blocks read the weights less often and fill register tiles
better; smaller ones stay in the second-level cache and occupy more threads, of which the target says how many
are expected. Parts transform the data again, for the sake of threads. The model below counts cycles and takes
the cheapest division.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cnnc.backend.kernels.tiles import pixels_for, row_cycles
from cnnc.backend.kernels.winograd_order import Order
from cnnc.backend.kernels.winograd_tiles import Blocking, blockings
from cnnc.backend.kernels.winograd_transforms import effort
from cnnc.backend.target import Target
from cnnc.ops.winograd import Tiling

MOST_TILES = 128
"""Tiles of a block at most: far more than it takes to pay for reading the weights."""

DATA_CYCLES = 3.5
"""Cycles per point of transforming a vector of data, at 36 points: loads, sums and stores."""

RESULT_CYCLES = 1.5
"""The same for results, which are fewer."""

GROWTH = 5
"""Of the effort of transforms."""

FILTER_CYCLES = 4.0
"""The same for filters, which come from behind the second-level cache."""

TURN_CYCLES = 8.0
"""What transposing them adds."""

SUM_CYCLES = 2.0
"""Of adding a vector of products to those of the runs before."""

FILTER_SHARE = 0.25
"""Of the first-level cache, what filters may take that have just been transformed."""

CACHE_BYTES_PER_CYCLE = 64.0
"""What comes from behind the second-level cache, but not from memory, while products are computed: it is
mostly there before it is needed."""

SCRATCH_BYTES_PER_CYCLE = 16.0
"""What scratch memory delivers or takes, as far as the second-level cache does not hold it."""

MEMORY_SHARE = 16
"""Weights of so many second-level caches come from memory again when the next block reads them."""

START_CYCLES = 20.0
"""Of a register tile apart from its products: filling the pipelines, storing the sums."""


@dataclass(frozen=True)
class Inline:
    """Weights of `taps` taps that every iteration transforms, in so many runs of channels. For an input
    gradient they are turned first."""

    taps: int
    runs: int
    is_turned: bool

    @property
    def cycles(self) -> float:
        """Per point of a vector of filters."""
        return FILTER_CYCLES + TURN_CYCLES * self.is_turned


@dataclass(frozen=True)
class Work:
    """A convolution: the tiles of an image, and images; `map_blocks` blocks of `width` vectors of `map_lanes`
    maps, and channels, transformed `channel_lanes` at a time. Weights have been transformed before, or are
    `inline`."""

    tiling: Tiling
    images: int
    channels: int
    channel_lanes: int
    map_blocks: int
    width: int
    map_lanes: int
    inline: Inline | None = None


@dataclass(frozen=True)
class Blocks:
    """A division: the blocks of tiles; `parts` of the maps, each `panels` times `panel` blocks of maps."""

    work: Work
    blocking: Blocking
    parts: int
    panels: int
    panel: int

    @property
    def iterations(self) -> int:
        """Of the parallel nest."""
        return self.parts * math.prod(self.blocking.blocks)

    @property
    def data_bytes(self) -> int:
        """Transformed data of a block of tiles."""
        return 4 * self.work.tiling.points * self.blocking.tiles * self.work.channels

    @property
    def product_bytes(self) -> int:
        """Products of a block of tiles and a panel of maps."""
        maps = self.panel * self.work.width * self.work.map_lanes
        return 4 * self.work.tiling.points * self.blocking.tiles * maps

    @property
    def weight_bytes(self) -> int:
        """Weights that an iteration reads."""
        work = self.work
        maps = self.panels * self.panel * work.width * work.map_lanes
        return 4 * (work.inline.taps if work.inline else work.tiling.points) * work.channels * maps

    def cycles(self, target: Target) -> float:
        """Of all iterations together, and of threads that wait for the last."""
        turns = -(-self.iterations // target.threads)
        return turns * target.threads * self._iteration_cycles(target)

    def _iteration_cycles(self, target: Target) -> float:
        """Of one iteration: both transforms, the products, and waiting for memory."""
        work, order = self.work, Order(self.work.tiling, self.blocking)
        maps, data = self.panels * self.panel * work.width, -(-work.channels // work.channel_lanes)
        transforms = (
            order.products * (data * DATA_CYCLES + maps * RESULT_CYCLES) * effort(work.tiling, GROWTH)
        ) * target.vector_cycles
        products = self.panels * self.panel * self._product_cycles(target, order)
        return transforms + products + self._filter_cycles(target) + self._waiting_cycles(target)

    def _product_cycles(self, target: Target, order: Order) -> float:
        """Of all products of a block of tiles by a block of maps."""
        work, cycles = self.work, 0.0
        for stretch in order.stretches:
            tiles = len(stretch.tiles)
            register_tiles = -(-tiles // pixels_for(target, tiles, work.width))
            starts = register_tiles * START_CYCLES
            step = work.channels * row_cycles(target, tiles, work.width) + starts
            accumulators = -(-tiles // register_tiles) * work.width
            cycles += len(stretch.rows) * len(stretch.columns) * step * (1 + 1 / accumulators)
        return cycles

    def _filter_cycles(self, target: Target) -> float:
        """Of transforming weights, and of adding up the products of the runs."""
        work = self.work
        if work.inline is None:
            return 0.0
        vectors = work.tiling.points * self.panels * self.panel * work.width
        sums = (work.inline.runs - 1) * self.blocking.tiles * SUM_CYCLES
        return vectors * (work.channels * work.inline.cycles + sums) * target.vector_cycles

    def _waiting_cycles(self, target: Target) -> float:
        """Of reading what the second-level cache does not hold until it is needed. Products are written and
        read in one go, beside results; other reads, but for those of data just written, come while products
        are computed."""
        scratch, overflow = self.data_bytes + self.product_bytes, self.product_bytes - target.l2_bytes / 2
        waiting = 2 * self.panels * max(0.0, overflow) / SCRATCH_BYTES_PER_CYCLE
        if scratch + self.weight_bytes <= target.l2_bytes:
            return waiting
        waiting += self.weight_bytes / CACHE_BYTES_PER_CYCLE
        if self.weight_bytes > MEMORY_SHARE * target.l2_bytes:
            again = 1 - 1 / math.prod(self.blocking.blocks)
            waiting += again * self.weight_bytes / target.memory_bytes_per_cycle
        if scratch > target.l2_bytes:
            cycles = 1 / SCRATCH_BYTES_PER_CYCLE + self.panels / CACHE_BYTES_PER_CYCLE
            waiting += self.data_bytes * (1 - target.l2_bytes / scratch) * cycles
        return waiting


def filter_run(target: Target, points: int, block: int, channels: int, unit: int) -> int:
    """How many channels are transformed at a time for a block of maps: whole vectors and units, `unit` being
    a vector or several, that divide all channels; as many as the cache has room for, at a row of so many
    points, but at least a unit. If none divide the channels, enough units for all."""
    step, whole = max(unit, target.lanes), -(-channels // unit) * unit
    most = max(step, int(FILTER_SHARE * target.l1_bytes) // (4 * points * block))
    return max((run for run in range(step, most + 1, step) if channels % run == 0), default=whole)


def choose_blocks(target: Target, work: Work, most_images: int, has_whole_rows: bool = False) -> Blocks:
    """The cheapest division into blocks of tiles from at most so many images, and of whole rows if asked."""
    return min(
        (
            blocks
            for blocks in divisions(work)
            if blocks.blocking.sizes[0] <= most_images
            and not (has_whole_rows and blocks.blocking.blocks[2] > 1)
        ),
        key=lambda blocks: (blocks.cycles(target), blocks.data_bytes, blocks.product_bytes),
    )


def divisions(work: Work) -> Iterator[Blocks]:
    """Every division; parts and panels divide the blocks of maps."""
    for blocking in blockings((work.images, *work.tiling.counts), MOST_TILES):
        for parts in _divisors(work.map_blocks):
            for panels in _divisors(work.map_blocks // parts):
                yield Blocks(work, blocking, parts, panels, work.map_blocks // parts // panels)


def _divisors(extent: int) -> tuple[int, ...]:
    return tuple(d for d in range(1, extent + 1) if extent % d == 0)
