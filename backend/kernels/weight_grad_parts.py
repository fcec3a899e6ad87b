"""How the work of a direct weight gradient is divided: parts of the weights by chunks of pixels.

Each iteration of the parallel nest computes a part: some of a filter row's channels by some blocks of maps.
It passes over all pixels a chunk at a time, so that a chunk's data stay in the second-level cache, and one
block's gradients of a chunk in the first, while every register tile of the part adds its products. The sums
wait in scratch memory between chunks. Sizes depend on the target and the shape alone, hence so does the order
of every sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cnnc.backend.kernels.tiles import RegisterTile, fits, split, step_cycles
from cnnc.backend.target import Target

WANTED_PARTS = 16
"""Iterations of the parallel nest that there should be: twice the threads of a common machine."""


@dataclass(frozen=True)
class Work:
    """A weight gradient: `pixels` (images, rows, columns) of dy; for each of `rows` filter rows `segments` runs
    of `length` weights by `blocks` blocks of `block` maps. `columns` are read of the source per pixel."""

    pixels: tuple[int, int, int]
    rows: int
    segments: int
    length: int
    blocks: int
    block: int
    columns: int = 1

    @property
    def all_pixels(self) -> int:
        return self.pixels[0] * self.pixels[1] * self.pixels[2]


@dataclass(frozen=True)
class Parts:
    """A division of the weights: `length` of each segment by `blocks` blocks of maps."""

    work: Work
    length: int
    blocks: int

    @property
    def counts(self) -> tuple[int, int]:
        """Parts along the segments and along the maps; of the latter the last may be smaller."""
        return self.work.length // self.length, -(-self.work.blocks // self.blocks)

    @property
    def number(self) -> int:
        """Iterations of the parallel nest."""
        return self.work.rows * self.counts[0] * self.counts[1]

    @property
    def sums_bytes(self) -> int:
        return 4 * self.work.segments * self.length * self.blocks * self.work.block

    @property
    def pixel_bytes(self) -> int:
        """What the tiles of a part read of one pixel."""
        return 4 * (self.work.columns * self.length + self.blocks * self.work.block)

    @property
    def traffic(self) -> int:
        """Elements that all iterations read for one pixel, in parts that are counted full."""
        along, across = self.counts
        return across * (along * self.length * self.work.columns + along * self.blocks * self.work.block)


def choose_parts(target: Target, work: Work) -> Parts:
    """The division that reads least, if there can be enough parts whose sums fill a quarter of the
    second-level cache at most."""

    def rank(parts: Parts) -> tuple[int, int, int]:
        missing = max(0, WANTED_PARTS - parts.number)
        excess = max(0, parts.sums_bytes - target.l2_bytes // 4)
        return missing, excess, parts.traffic

    return min(_divisions(work), key=rank)


def _divisions(work: Work) -> Iterator[Parts]:
    for length in (d for d in range(1, work.length + 1) if work.length % d == 0):
        for blocks in range(1, work.blocks + 1):
            yield Parts(work, length, blocks)


@dataclass(frozen=True)
class Chunks:
    """Sizes of the chunks along images and along rows; of either at most two different ones."""

    images: tuple[int, ...]
    rows: tuple[int, ...]

    @property
    def number(self) -> int:
        return len(self.images) * len(self.rows)


def choose_chunks(target: Target, parts: Parts) -> Chunks:
    """Whole rows, and images where several fit half of the caches."""
    images, rows, columns = parts.work.pixels
    first, second = target.l1_bytes // (8 * parts.work.block), target.l2_bytes // (2 * parts.pixel_bytes)
    most = max(1, min(first, second) // columns)
    if most < 2 * rows:
        return Chunks((1,) * images, split(rows, most))
    return Chunks(split(images, most // rows), (rows,))


def rows_of_a_tile(target: Target, length: int, vectors: int) -> int:
    """Weights of the best register tile with `vectors` vectors of maps, to cover `length`."""

    def cost(rows: int) -> tuple[float, int]:
        return sum(step_cycles(target, RegisterTile(size, vectors)) for size in split(length, rows)), -rows

    most = min(length, target.registers)
    return min((r for r in range(1, most + 1) if fits(target, RegisterTile(r, vectors))), key=cost)
