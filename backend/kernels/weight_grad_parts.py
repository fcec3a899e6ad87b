"""How the work of a direct weight gradient is divided: parts of the weights by chunks of pixels.

Each iteration of the parallel nest computes a part: one filter row or all of them, some of its channels, some
blocks of maps. It passes over the pixels a chunk at a time, so that a chunk's data stay in the second-level
cache, and one block's gradients of a chunk in the first, while every register tile of the part adds its
products; the sums wait in scratch memory between chunks. Smaller parts occupy more threads, but read data and
gradients more often. Sizes depend on the target and the shape alone, hence so does the order of every sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from cnnc.backend.kernels.tiles import RegisterTile, fits, split, step_cycles
from cnnc.backend.target import Target

THREADS = 8
"""As many as a common machine has: divisions are compared as they run on one and on so many."""

LINE = 64
"""Bytes of a cache line."""

SET_BYTES = 4096
"""Addresses so far apart are in the same set of a first-level cache."""

LEAST_PIXELS = 64
"""Of a chunk: fewer do not pay for the sums' loads and stores."""

LINE_CYCLES = 2
"""Until a line has come to where tiles read it."""

CACHED = 8
"""Times the second-level cache: data up to so large are read again without going to memory."""


@dataclass(frozen=True)
class Work:
    """A weight gradient: `strips` times `pixels` (images, rows, columns) of dy; in each of `groups`, for each
    of `rows` filter rows, `segments` runs of `length` weights by `blocks` blocks of `block` maps, which are
    `vectors` vectors. One pixel of dy goes with `step` rows and columns of the source."""

    strips: int
    pixels: tuple[int, int, int]
    groups: int
    rows: int
    segments: int
    length: int
    blocks: int
    block: int
    vectors: int
    step: tuple[int, int]


@dataclass(frozen=True)
class Parts:
    """A division of the weights: `rows` filter rows by `length` of each segment, which takes `tile_cycles`
    per pixel and block, by `blocks` blocks of maps."""

    work: Work
    rows: int
    length: int
    blocks: int
    tile_cycles: float

    @property
    def counts(self) -> tuple[int, int, int]:
        """Parts along filter rows, segments and maps; of the last of these the last may be smaller."""
        work = self.work
        return work.rows // self.rows, work.length // self.length, -(-work.blocks // self.blocks)

    @property
    def number(self) -> int:
        """Iterations of the parallel nest."""
        return self.work.strips * self.work.groups * math.prod(self.counts)

    @property
    def sums_bytes(self) -> int:
        return 4 * self.rows * self.work.segments * self.length * self.blocks * self.work.block

    @property
    def pixel_bytes(self) -> int:
        """What a part reads for one pixel of dy: whole lines."""
        down, right = self.work.step
        source = -(-4 * self.length // LINE) * LINE * right * (down if self.rows > 1 else 1)
        return source + 4 * self.blocks * self.work.block

    def cycles(self, target: Target) -> float:
        """Of one iteration: the tiles', and until their operands have come from other caches or memory."""
        work, pixels = self.work, math.prod(self.work.pixels)
        tiles = self.tile_cycles * work.segments * self.rows * self.blocks
        loads = self.pixel_bytes / LINE * LINE_CYCLES
        every = 4 * work.strips * pixels * work.groups * work.blocks * work.block
        is_in_memory = every > CACHED * target.l2_bytes
        streamed = self.pixel_bytes / target.memory_bytes_per_cycle if is_in_memory else 0.0
        return pixels * max(tiles + loads, streamed)

    def cost(self, target: Target) -> float:
        """Cycles on one thread and, times their number, on many."""
        return shared_cost(self.number, self.cycles(target))


def shared_cost(number: int, cycles: float) -> float:
    """Of so many iterations of so many cycles: on one thread and, times their number, on many."""
    turns = -(-number // THREADS) * THREADS
    return (number + turns) * cycles


def choose_parts(target: Target, work: Work) -> Parts:
    """The cheapest division whose sums fill a quarter of the second-level cache at most."""

    def rank(parts: Parts) -> tuple[int, float, int]:
        excess = max(0, parts.sums_bytes - target.l2_bytes // 4)
        return excess, parts.cost(target), parts.number

    return min(_divisions(target, work), key=rank)


def _divisions(target: Target, work: Work) -> Iterator[Parts]:
    """Equal lengths, and of as many parts along the maps the most equal."""
    numbers = {-(-work.blocks // parts) for parts in range(1, work.blocks + 1)}
    for length in (d for d in range(1, work.length + 1) if work.length % d == 0):
        cycles = tile_cycles(target, length, work.vectors)
        for rows, blocks in product(sorted({1, work.rows}), sorted(numbers)):
            yield Parts(work, rows, length, blocks, cycles)


@dataclass(frozen=True)
class Chunks:
    """Sizes of the chunks along images and along rows, of either at most two different ones; and which
    operands are copied aside, chunk by chunk."""

    images: tuple[int, ...]
    rows: tuple[int, ...]
    copies_source: bool
    copies_gradients: bool

    @property
    def number(self) -> int:
        return len(self.images) * len(self.rows)


def choose_chunks(target: Target, parts: Parts, pitches: tuple[int, int], made: bool = False) -> Chunks:
    """Whole rows, and images where several fit half of the caches. `pitches` are the elements between
    neighbouring pixels of the source and of dy; a source that is `made` by a prologue is copied."""
    work, (images, rows, columns) = parts.work, parts.work.pixels
    held = _held(target, pitches[0], 1), _held(target, pitches[1], work.block * 4 // LINE)
    limits = [target.l1_bytes // (8 * work.block), target.l2_bytes // (2 * parts.pixel_bytes)]
    pixels = min([*limits, *(h for h in held if h >= LEAST_PIXELS)])
    crowded = [h < min(LEAST_PIXELS, math.prod(work.pixels)) for h in held]
    copied = crowded[0] or made, crowded[1]
    most = max(1, pixels // columns)
    if most < 2 * rows:
        return Chunks((1,) * images, split(rows, most), *copied)
    return Chunks(split(images, most // rows), (rows,), *copied)


def _held(target: Target, pitch: int, lines: int) -> int:
    """Of how many pixels the first-level cache holds `lines` lines: fewer of a pitch that leads to the same
    sets again and again."""
    step = math.gcd(4 * pitch, SET_BYTES) // LINE
    return target.l1_bytes // LINE // max(1, lines, step)


def rows_of_a_tile(target: Target, length: int, vectors: int) -> int:
    """Weights of the best register tile with `vectors` vectors of maps, to cover `length`: of equally fast
    ones the largest, which loads least."""
    most = min(length, target.registers)
    fitting = (rows for rows in range(1, most + 1) if fits(target, RegisterTile(rows, vectors)))
    return min(fitting, key=lambda rows: (_cycles(target, length, rows, vectors), -rows))


def tile_cycles(target: Target, length: int, vectors: int) -> float:
    """Cycles per pixel of the best tiles that cover `length`."""
    return _cycles(target, length, rows_of_a_tile(target, length, vectors), vectors)


def _cycles(target: Target, length: int, rows: int, vectors: int) -> float:
    return sum(step_cycles(target, RegisterTile(size, vectors)) for size in split(length, rows))
