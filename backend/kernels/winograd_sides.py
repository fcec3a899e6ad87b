"""The two sides of a Winograd weight gradient, data and gradients: from memory to scratch, transformed.

A block of tiles is first fetched (fetch.py), then transformed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine
from cnnc.backend.kernels.fetch import Fetcher
from cnnc.backend.kernels.prologue import Loader
from cnnc.backend.kernels.runs import Axis, Run, loop_over, runs
from cnnc.backend.kernels.winograd_order import Order, Place
from cnnc.backend.kernels.winograd_transforms import Steps, transform_tile
from cnnc.ops.winograd_matrices import Algorithm


@dataclass(frozen=True)
class Side:
    """Maps [N,H,W,C] from number `image` on, and the transform of their tiles, along rows and columns by
    `matrices` of an algorithm.

    The channels are cut into `parts` parts of `vectors` vectors, of which an iteration of the parallel nest
    takes number `part`. At each point it keeps `width` elements of every tile of a block in `scratch`.
    """

    source: Loader
    lanes: int
    vectors: int
    parts: int
    part: Affine
    image: Affine
    axes: tuple[Axis, Axis]
    matrices: Callable[[Algorithm], Steps]
    scratch: BufferHandle

    @property
    def width(self) -> int:
        return self.vectors * self.lanes

    @property
    def channels(self) -> int:
        return self.source.handle.buffer.shape[3]

    @property
    def first(self) -> Affine:
        """The first channel of the part."""
        return self.part * self.width

    @property
    def runs(self) -> tuple[tuple[int, Run], ...]:
        """The vectors of all parts as runs, with the lanes that hold something: all, some, or none."""
        full, rest = divmod(self.channels, self.lanes)
        held = full + (rest > 0)
        ends = ((self.lanes, 0, full), (rest, full, held), (0, held, self.parts * self.vectors))
        return tuple((count, Run(first, end - first, ())) for count, first, end in ends if end > first)


@dataclass(frozen=True)
class Transformer:
    """Writes how blocks of tiles are fetched and transformed."""

    k: KernelBuilder
    order: Order
    fetcher: Fetcher

    def fetch(self, side: Side, block: Place) -> None:
        """Fetch the rows of a block but for those that it shares with the block before."""
        extents = self.order.blocking.extents(block, side.axes, side.image)
        in_every_part = min(side.width, side.channels - (side.parts - 1) * side.width)
        self.fetcher.fetch([side.source.handle], *extents, (side.first, in_every_part))

    def transform(self, side: Side, block: Place) -> None:
        """Transform the tiles of a block, run by run; tiles behind the last are zero."""
        for reach in self._reaches(side):
            self._run(side, block, reach)

    def _reaches(self, side: Side) -> Iterator[tuple[Run, Run, Run]]:
        """Runs along images, rows and columns: what lies outside along one axis is not cut along the next."""
        order, (images, rows, columns) = self.order, self.order.blocking.covered
        count = order.blocking.counts[0]
        for image in runs(Axis(count, 1, 0, 1, count), images):
            for row in runs(side.axes[0], rows) if image.inside else order.outside(0, rows):
                for column in runs(side.axes[1], columns) if row.inside else order.outside(1, columns):
                    yield image, row, column

    def _run(self, side: Side, block: Place, reach: tuple[Run, Run, Run]) -> None:
        """Transform the tiles of a block that are in one run along each axis."""
        k, sizes = self.k, self.order.blocking.sizes
        with (
            loop_over(k, "n", reach[0], block[0], sizes[0]) as n,
            loop_over(k, "y", reach[1], block[1], sizes[1]) as y,
            loop_over(k, "x", reach[2], block[2], sizes[2]) as x,
        ):
            start = self.order.position((n, y, x), block, side.axes, reach[1:]) * side.width
            for count, vectors in side.runs:
                with loop_over(k, "v", vectors, side.part, side.vectors) as v:
                    self._vector(side, reach, (n, y, x), (start, v * side.lanes, count))

    def _vector(
        self, side: Side, reach: tuple[Run, Run, Run], tile: Place, vector: tuple[Affine, Affine, int]
    ) -> None:
        """Transform a vector of one tile: of its lanes `count` hold something, if it reaches anything.

        `vector` is where the tile begins in scratch, the first channel, and `count`.
        """
        (rows, columns), (n, y, x), (start, channel, count) = side.axes, tile, vector
        points = self.order.tiling.axes[1].points
        loaded = side.source.at(channel, side.lanes, count) if count else None

        def load(i: int, j: int) -> Vec | None:
            if loaded is None or i not in reach[1].inside or j not in reach[2].inside:
                return None
            pixel = (
                n + side.image,
                y * rows.step + (i - rows.origin),
                x * columns.step + (j - columns.origin),
            )
            return loaded((*pixel, channel))

        def store(i: int, j: int, value: Vec) -> None:
            side.scratch.store((i * points + j, start + (channel - side.first)), value)

        down, across = algorithms = self.order.algorithms(side.axes, reach[1:])
        transform_tile(self.k, side.matrices(down), side.matrices(across), side.lanes, load, store)
        for i, j in self.order.unneeded(algorithms):
            store(i, j, self.k.constant(0.0, side.lanes))
