"""In which order a block of Winograd tiles lies in scratch memory, and which tiles each point takes.

The last tiles of rows and columns may have fewer results than the others, and then do without the last points
(winograd_matrices.py). A map of 7x7 is four tiles of 4x4, of which 36, 30, 30 and 25 products are needed.
In a block of whole images the tiles stand so that those which need a point are a stretch:

    last columns, inner tiles, last rows, corners

All of them need the first points, all but the last rows and corners the last rows of points, all but the last
columns and corners the last columns of points, the inner tiles every point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine
from cnnc.backend.kernels.runs import Axis, Run
from cnnc.backend.kernels.winograd_tiles import Blocking
from cnnc.ops.winograd import Tiling
from cnnc.ops.winograd_matrices import Algorithm

Place = tuple[Affine, Affine, Affine]
"""Numbers along images, tile rows and tile columns: of a tile, or of a block of tiles."""


@dataclass(frozen=True)
class Stretch:
    """Rows by columns of points, and the positions of the tiles in a block that take them."""

    rows: range
    columns: range
    tiles: range


@dataclass(frozen=True)
class Order:
    """The order of the tiles of each block. Without whole images in a block, or cut tiles in a map, it is
    that of images, rows and columns, and all tiles take all points. Cut tiles are transformed as such even
    so: how a map is divided into blocks changes no bit."""

    tiling: Tiling
    blocking: Blocking

    @cached_property
    def is_cut(self) -> tuple[bool, bool]:
        """Whether there are points, along rows and along columns, that the last tiles are left out of."""
        rows, columns = (
            self.blocking.has_whole_images and last.points < every.points
            for last, every in zip(self.tiling.last, self.tiling.axes, strict=True)
        )
        return rows, columns

    def algorithms(self, axes: tuple[Axis, Axis], runs: Sequence[Run]) -> tuple[Algorithm, Algorithm]:
        """Along rows and columns, those of the tiles in these runs."""
        tiling = self.tiling
        rows, columns = (
            last if axis.ends_with(run) else every
            for every, last, axis, run in zip(tiling.axes, tiling.last, axes, runs, strict=True)
        )
        return rows, columns

    def unneeded(self, algorithms: tuple[Algorithm, Algorithm]) -> Iterator[tuple[int, int]]:
        """The points that tiles of these algorithms are not left out of, but do not need."""
        if any(self.is_cut):
            return
        rows, columns = algorithms
        for i, j in product(*(range(axis.points) for axis in self.tiling.axes)):
            if i >= rows.points or j >= columns.points:
                yield i, j

    def outside(self, axis: int, tiles: int) -> Sequence[Run]:
        """Tiles that reach nothing, as of images behind the last, in runs whose positions go on."""
        if not self.is_cut[axis]:
            return (Run(0, tiles, ()),)
        return Run(0, tiles - 1, ()), Run(tiles - 1, 1, ())

    def position(self, place: Place, block: Place, axes: tuple[Axis, Axis], runs: Sequence[Run]) -> Affine:
        """Where in a block a tile lies that is in these runs along rows and columns."""
        if not any(self.is_cut):
            return self.blocking.position(place, block)
        last_row, last_column = (
            is_cut and axis.ends_with(run) for is_cut, axis, run in zip(self.is_cut, axes, runs, strict=True)
        )
        (n, y, x), (rows, columns) = (place[0] - block[0] * self.blocking.sizes[0], *place[1:]), self._inner
        inner, at_rows, corners = self._starts
        if last_row:
            return n + corners if last_column else n * columns + x + at_rows
        return n * rows + y if last_column else (n * rows + y) * columns + x + inner

    @property
    def _inner(self) -> tuple[int, int]:
        """Rows and columns of tiles that take every point."""
        rows, columns = (n - cut for n, cut in zip(self.tiling.counts, self.is_cut, strict=True))
        return rows, columns

    @property
    def _starts(self) -> tuple[int, int, int]:
        """Where behind the last columns the inner tiles, last rows and corners begin."""
        images, (rows, columns), (cut_rows, cut_columns) = self.blocking.sizes[0], self._inner, self.is_cut
        inner = images * rows * cut_columns
        at_rows = inner + images * rows * columns
        return inner, at_rows, at_rows + images * columns * cut_rows

    @cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """Every point once, with the tiles that take it."""
        if not any(self.is_cut):
            rows, columns = (range(axis.points) for axis in self.tiling.axes)
            return (Stretch(rows, columns, range(self.blocking.tiles)),)
        inner, at_rows, corners = self._starts
        found = []
        for (i, rows), (j, columns) in product(*(enumerate(self._point_ranges(axis)) for axis in (0, 1))):
            stop = at_rows if i else corners if j else self.blocking.tiles
            found.append(Stretch(rows, columns, range(inner if j else 0, stop)))
        return tuple(found)

    def _point_ranges(self, axis: int) -> tuple[range, ...]:
        """The points that all tiles take along an axis, and those that the last tiles do without."""
        every, kept = self.tiling.axes[axis].points, self.tiling.last[axis].points
        return (range(kept), range(kept, every)) if self.is_cut[axis] else (range(every),)

    @property
    def products(self) -> int:
        """Of a block, the points that its tiles take: products for each channel and map."""
        return sum(len(s.rows) * len(s.columns) * len(s.tiles) for s in self.stretches)

    @contextmanager
    def each_point(self, k: KernelBuilder, stretch: Stretch) -> Iterator[Affine]:
        """A loop over the points of a stretch, or two."""
        width = self.tiling.axes[1].points
        rows, columns = stretch.rows, stretch.columns
        if len(columns) == width:
            with k.loop("p", rows.start * width, rows.stop * width) as p:
                yield p
            return
        with (
            k.loop("i", rows.start, rows.stop) as i,
            k.loop("j", columns.start, columns.stop) as j,
        ):
            yield i * width + j
