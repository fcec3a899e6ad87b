"""Where the tiles of a Winograd kernel lie: runs of tiles that reach equally far, and blocks of tiles.

Tiles at the border of a map reach outside. Along each axis neighbouring tiles that reach the same elements
make a run, for which a kernel writes one loop. Kernels work on a block of tiles at a time: some images, tile
rows and tile columns. Blocks need not divide the axes: tiles beyond the last reach nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby, product

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernels.fetch import Extent
from cnnc.ops.winograd import Tiling


@dataclass(frozen=True)
class Axis:
    """Tiles along an axis: tile i takes `extent` of its `size` elements, from `step` * i - `origin` on."""

    tiles: int
    step: int
    origin: int
    extent: int
    size: int

    def inside(self, tile: int) -> tuple[int, ...]:
        """Offsets in a tile that lie in the map; none in tiles behind the last."""
        first = tile * self.step - self.origin
        return tuple(i for i in range(self.extent) if tile < self.tiles and 0 <= first + i < self.size)

    def ends_with(self, run: Run) -> bool:
        """Whether the last of a run of tiles is the last of all."""
        return run.first + run.count == self.tiles


def data_axes(tiling: Tiling, pad: tuple[int, ...], size: tuple[int, ...]) -> tuple[Axis, Axis]:
    """Rows and columns of the data under the tiles, of a map of `size`: they overlap, and reach into the
    padding."""
    extents = [axis.points for axis in tiling.axes]
    return _both_axes(tiling, tiling.steps, pad[:2], extents, size)


def result_axes(tiling: Tiling) -> tuple[Axis, Axis]:
    """Rows and columns of the tiles' results: they lie side by side, the last may be cut."""
    return _both_axes(tiling, tiling.tile, (0, 0), tiling.tile, tiling.size)


def _both_axes(tiling: Tiling, *of_axes: Sequence[int]) -> tuple[Axis, Axis]:
    rows, columns = (Axis(*each) for each in zip(tiling.counts, *of_axes, strict=True))
    return rows, columns


@dataclass(frozen=True)
class Run:
    """`count` tiles from `first` on that all reach the offsets `inside`."""

    first: int
    count: int
    inside: tuple[int, ...]


def runs(axis: Axis, tiles: int) -> tuple[Run, ...]:
    """The runs of the first `tiles` tiles, which may be more than the axis has."""
    found: list[Run] = []
    for inside, group in groupby(range(tiles), axis.inside):
        members = list(group)
        found.append(Run(members[0], len(members), inside))
    return tuple(found)


@dataclass(frozen=True)
class Blocking:
    """Axes cut into blocks: `counts` tiles along images, rows and columns, `sizes` of them in a block."""

    counts: tuple[int, int, int]
    sizes: tuple[int, int, int]

    @property
    def blocks(self) -> tuple[int, int, int]:
        images, rows, columns = (-(-n // size) for n, size in zip(self.counts, self.sizes, strict=True))
        return images, rows, columns

    @property
    def tiles(self) -> int:
        """Tiles of a block."""
        return math.prod(self.sizes)

    @property
    def covered(self) -> tuple[int, int, int]:
        """Tiles of all blocks along each axis, those behind the last included."""
        images, rows, columns = (n * size for n, size in zip(self.blocks, self.sizes, strict=True))
        return images, rows, columns

    @property
    def total(self) -> int:
        """Tiles of all blocks, those behind the last included."""
        return math.prod(self.covered)

    @property
    def has_whole_images(self) -> bool:
        """Whether no image is parted."""
        return self.sizes[1:] == self.counts[1:]

    def extents(
        self, block: tuple[Affine, Affine, Affine], axes: tuple[Axis, Axis], image: Affine
    ) -> tuple[Extent, Extent, Extent]:
        """Where along images, rows and columns a block reads what the block before did not, of the images
        from number `image` on."""
        first = image + block[0] * self.sizes[0]
        found: list[Extent] = [((first,), (image + self.counts[0], first + self.sizes[0]))]
        for number, size, axis in zip(block[1:], self.sizes[1:], axes, strict=True):
            start = number * (size * axis.step) + (axis.extent - axis.step - axis.origin)
            found.append(((affine(0), start), (affine(axis.size), start + size * axis.step)))
        images, rows, columns = found
        return images, rows, columns

    def position(self, place: tuple[Affine, Affine, Affine], block: tuple[Affine, Affine, Affine]) -> Affine:
        """The number in its block of the tile at `place`."""
        inner = [at - number * size for at, number, size in zip(place, block, self.sizes, strict=True)]
        return (inner[0] * self.sizes[1] + inner[1]) * self.sizes[2] + inner[2]


def blockings(counts: tuple[int, int, int], most: int) -> Iterator[Blocking]:
    """Blocks of at most `most` tiles: parts of a row, else whole rows of an image, else whole images."""
    for images, rows, columns in product(*(_sizes(count) for count in counts)):
        whole_rows = columns == counts[2] or rows == 1
        whole_images = (rows, columns) == counts[1:] or images == 1
        if whole_rows and whole_images and images * rows * columns <= most:
            yield Blocking(counts, (images, rows, columns))


def _sizes(count: int) -> tuple[int, ...]:
    """The least sizes that cut an axis into each number of blocks."""
    return tuple(sorted({-(-count // blocks) for blocks in range(1, count + 1)}))


def loop_over(
    k: KernelBuilder, name: str, run: Run, block: Affine, size: int
) -> AbstractContextManager[Affine]:
    """A loop over the tiles of a run that are in a block of `size`."""
    if not block.terms:
        return k.loop(name, run.first, run.first + run.count)
    return k.loop(
        name, (affine(run.first), block * size), (affine(run.first + run.count), block * size + size)
    )
