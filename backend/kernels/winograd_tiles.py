"""Where the tiles of a Winograd kernel lie: the axes of data and results, and blocks of tiles.

Kernels work on a block of tiles at a time: some images, tile rows and tile columns. Blocks need not divide
the axes: tiles beyond the last reach nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernels.fetch import Extent
from cnnc.backend.kernels.runs import Axis
from cnnc.ops.winograd import Tiling


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
