"""Convolution by Winograd's minimal filtering, transforms, products and epilogue in one kernel.

y = A^T [sum over channels of (B^T d B) * u] A. Each iteration of the parallel nest computes a part of the
maps for a block of tiles: it transforms the data of the block into scratch memory, V [P,T,C] for every run
of channels; then for a panel of maps at a time it forms at every point the product [T,C] [C,maps],
M [P,T,maps], by register tiles, and transforms M into results, to which the epilogue is applied in registers.
Weights come transformed, or a run of channels at a time is transformed before it is multiplied
(winograd_operand.py). winograd_blocks.py decides on sizes. Blocks need not divide the map: tiles behind the
last are multiplied, whatever they hold, but neither made nor read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, product

from cnnc.backend.kernel.builder import Bound, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.fetch import Fetcher, apart
from cnnc.backend.kernels.prologue import Loader
from cnnc.backend.kernels.region import Epilogue, Point, Region, point
from cnnc.backend.kernels.runs import Axis, Run, loop_over, runs
from cnnc.backend.kernels.site import Arguments, Site, Tensor
from cnnc.backend.kernels.tiles import pixels_for, split
from cnnc.backend.kernels.winograd_blocks import Blocks, Work, choose_blocks
from cnnc.backend.kernels.winograd_filters import with_lanes
from cnnc.backend.kernels.winograd_operand import InlineWeights, Weights, weights_of
from cnnc.backend.kernels.winograd_order import Order, Stretch
from cnnc.backend.kernels.winograd_tiles import data_axes, result_axes
from cnnc.backend.kernels.winograd_transforms import transform_tile
from cnnc.errors import UnsupportedError
from cnnc.ops.winograd import WinogradConv2d

UNROLL = 4
"""Channels of one iteration of the innermost loop."""

_Block = tuple[Affine, Affine, Affine]
"""The number of a block along images, tile rows and tile columns."""


@dataclass(frozen=True)
class _At:
    """Where a product is computed: the point, the block of maps, where the weights of the point are, and the
    run of channels."""

    point: Affine
    block: Affine
    weights: Affine
    run: Affine = field(default_factory=lambda: affine(0))


def winograd_conv2d(site: Site) -> Kernel:
    """y [N,H',W',K] of x [N,H,W,C] and u [K/B,P,C,B] or w [O/B,Kh,Kw,I,B]; for B = 1 without a last axis."""
    region = Region(site)
    assert isinstance(region.anchor, WinogradConv2d)
    if any(m % size for m, size in zip(region.anchor.tile, region.window, strict=True)):
        raise UnsupportedError(f"windows of {region.window} do not divide tiles of {region.anchor.tile}")
    height, tile_rows = region.result.type.shape[2], region.anchor.tile[0]
    region.expect_bands(lambda rows: rows == min(tile_rows, height))
    return _Winograd(site, region, region.anchor).build()


class _Winograd:
    """Writes one convolution."""

    def __init__(self, site: Site, region: Region, op: WinogradConv2d) -> None:
        self.op, self.region, self.target = op, region, site.target
        self.k = KernelBuilder(region.body.name if region.epilogue else op.name)
        x, weights = region.anchor_tensor(0), region.anchor_tensor(1)
        self.tiling, self.source_tensor = op.tiling(*x.shape[2:]), x

        def view(tensor: Tensor) -> tuple[int, ...]:
            return with_lanes(tensor) if tensor is weights else tensor.physical

        self.arguments: Arguments = region.declare(self.k, view)
        self.source = Loader.of(self.k, region, self.arguments, 0)
        self.weights: Weights | InlineWeights = weights_of(
            self.k, op, weights, self.arguments.operands[region.operand(1)], site.target
        )
        self.channels, self.maps, self.packed = x.shape[1], self.weights.maps, self.weights.block
        self.channel_lanes, self.map_lanes = site.lanes(self.channels), min(site.target.lanes, self.packed)
        self.width = self.packed // self.map_lanes
        work = Work(
            self.tiling, x.shape[0], self.channels, self.channel_lanes,
            -(-self.maps // self.packed), self.width, self.map_lanes, self.weights.inline,
        )  # fmt: skip
        most_images, is_banded = 1 if site.exact_images else x.shape[0], region.bands is not None
        self.blocks: Blocks = choose_blocks(site.target, work, most_images, is_banded)
        self.order = Order(self.tiling, self.blocks.blocking)
        self.marked = self.blocks.blocking.sizes[0] * site.each_image
        self.tiles, self.panel = self.blocks.blocking.tiles, self.blocks.panel * self.packed
        points = self.tiling.points
        self.data = self.k.scratch("data", (self.weights.runs * points, apart(self.tiles * self.weights.run)))
        self.products = self.k.scratch("products", (points, apart(self.tiles * self.panel)))

    def build(self) -> Kernel:
        """The parallel nest: parts of the maps outermost, so that a thread keeps to few of them."""
        k, (images, rows, columns) = self.k, self.blocks.blocking.blocks
        with (
            k.once_or_loop("part", self.blocks.parts, parallel=True) as part,
            k.once_or_loop("images", images, parallel=True, images=self.marked) as n,
            k.once_or_loop("rows", rows, parallel=True) as y,
            k.once_or_loop("columns", columns, parallel=True) as x,
        ):
            self._transform_data((n, y, x))
            with k.once_or_loop("panel", self.blocks.panels) as panel:
                first = (part * self.blocks.panels + panel) * self.blocks.panel
                self._multiply(first)
                self._transform_products((n, y, x), first)
        return self.k.build()

    @contextmanager
    def _each_tile(self, block: _Block, rows: Run, columns: Run) -> Iterator[_Block]:
        """Loops over the tiles of a block that are in a run along each axis."""
        counts, sizes = self.blocks.blocking.counts, self.blocks.blocking.sizes
        with (
            loop_over(self.k, "n", Run(0, counts[0], (0,)), block[0], sizes[0]) as n,
            loop_over(self.k, "y", rows, block[1], sizes[1]) as y,
            loop_over(self.k, "x", columns, block[2], sizes[2]) as x,
        ):
            yield n, y, x

    def _transform_data(self, block: _Block) -> None:
        """V = B^T d B for the tiles of a block and all channels."""
        axes = self._data_axes
        if self.source_tensor.type.nbytes > self.target.l2_bytes:
            extents = self.blocks.blocking.extents(block, axes, affine(0))
            Fetcher.of(self.k).fetch([self.source.handle], *extents, (0, self.channels))
        vectors, rest = divmod(self.weights.run, self.channel_lanes)
        for reach in product(*(runs(axis, axis.tiles) for axis in axes)):
            with (
                self._each_tile(block, *reach) as place,
                self.k.once_or_loop("run", self.weights.runs) as run,
            ):
                with self.k.loop("vector", 0, vectors) as vector:
                    self._data_vector(block, place, reach, (run, vector), self.channel_lanes)
                if rest:
                    self._data_vector(block, place, reach, (run, affine(vectors)), rest)

    def _data_vector(
        self, block: _Block, place: _Block, reach: tuple[Run, ...], at: tuple[Affine, Affine], count: int
    ) -> None:
        """A vector of channels of a run for one tile; what lies outside the map is zero."""
        axes, width = self._data_axes, self._columns
        (n, y, x), (down, across), (top, left) = place, self.tiling.steps, self.op.pad[:2]
        (run, vector), length = at, self.weights.run
        channel = run * length + vector * self.channel_lanes
        position = self.order.position(place, block, axes, reach) * length + vector * self.channel_lanes
        loaded = self.source.at(channel, self.channel_lanes, count)

        def load(i: int, j: int) -> Vec | None:
            if i not in reach[0].inside or j not in reach[1].inside:
                return None
            at = self.source_tensor.place((n, channel, y * down + (i - top), x * across + (j - left)))
            return loaded(at)

        def store(i: int, j: int, value: Vec) -> None:
            self.data.store((run * self.tiling.points + (i * width + j), position), value, count)

        rows, columns = algorithms = self.order.algorithms(axes, reach)
        transform_tile(self.k, rows.data_steps, columns.data_steps, self.channel_lanes, load, store)
        for i, j in self.order.unneeded(algorithms):
            store(i, j, self.k.constant(0.0, self.channel_lanes))

    @cached_property
    def _data_axes(self) -> tuple[Axis, Axis]:
        return data_axes(self.tiling, self.op.pad, self.source_tensor.shape[2:])

    @cached_property
    def _result_axes(self) -> tuple[Axis, Axis]:
        return result_axes(self.tiling)

    @property
    def _columns(self) -> int:
        """Points of a row."""
        return self.tiling.axes[1].points

    def _multiply(self, first: Affine) -> None:
        """M = V u at every point, for the panel of maps that begins with block `first`."""
        weights, k = self.weights, self.k
        if isinstance(weights, Weights):
            for stretch in self.order.stretches:
                with self.order.each_point(k, stretch) as p:
                    for bounds, vectors in self._panel_blocks(first):
                        with k.loop("block", *bounds) as block:
                            self._multiply_block(_At(p, block, p), first, vectors, stretch.tiles)
            return
        for bounds, vectors in self._panel_blocks(first):
            with k.loop("block", *bounds) as block:
                if weights.runs > 1:
                    self._clear_products(block - first)
                with k.once_or_loop("run", weights.runs) as run:
                    weights.begin(block, run)
                    for rows, stretches in groupby(self.order.stretches, key=lambda stretch: stretch.rows):
                        with k.loop("row", rows.start, rows.stop) as row:
                            weights.make(block, run, row, rows)
                            for stretch in stretches:
                                self._multiply_row(_At(row, block, row, run), first, vectors, stretch)

    def _multiply_row(self, at: _At, first: Affine, vectors: int, stretch: Stretch) -> None:
        """A row of points of a stretch, `at.point` being its number."""
        with self.k.loop("column", stretch.columns.start, stretch.columns.stop) as column:
            place = replace(at, point=at.point * self._columns + column, weights=column)
            self._multiply_block(place, first, vectors, stretch.tiles)

    def _panel_blocks(self, first: Affine) -> Iterator[tuple[tuple[Bound, Bound], int]]:
        """The bounds of loops over the blocks of a panel, and the vectors of maps that they have."""
        whole, rest = divmod(-(-self.maps // self.map_lanes), self.width)
        last = first + self.blocks.panel
        if whole:
            yield (first, (last, affine(whole)) if rest else last), self.width
        if rest:
            yield ((first, affine(whole)), (last, affine(whole + 1))), rest

    def _clear_products(self, block: Affine) -> None:
        """M = 0 for a block of maps, for the products of several runs of channels to be added up."""
        zero = self.k.constant(0.0, self.map_lanes)
        with self.k.loop("p", 0, self.tiling.points) as p, self.k.loop("tile", 0, self.tiles) as tile:
            for start in range(0, self.packed, self.map_lanes):
                self.products.store((p, tile * self.panel + block * self.packed + start), zero)

    def _multiply_block(self, at: _At, first: Affine, vectors: int, tiles: range) -> None:
        """Some tiles by the first `vectors` vectors of a block of maps, by register tiles."""
        start = tiles.start
        sizes = split(len(tiles), pixels_for(self.target, len(tiles), vectors))
        for size, group in groupby(sizes):
            count = len(list(group))
            with self.k.once_or_loop("tile", count) as tile:
                self._register_tile(at, tile * size + start, first, (size, vectors))
            start += count * size

    def _register_tile(self, at: _At, tile: Affine, first: Affine, size: tuple[int, int]) -> None:
        """The product for some tiles by some vectors of maps, over a run of channels."""
        k, lanes, (tiles, vectors), length = self.k, self.map_lanes, size, self.weights.run
        acc, row = k.register("acc", lanes, size), at.run * self.tiling.points + at.point

        def step(channel: Affine) -> None:
            weights = self.weights.vectors(at.block, at.weights, channel, vectors)
            for t in range(tiles):
                value = self.data.splat((row, (tile + t) * length + channel), lanes)
                for v, weight in enumerate(weights):
                    acc[t, v] = k.fma(value, weight, acc[t, v])

        k.unrolled("c", length, UNROLL, step)
        for t, v in product(range(tiles), range(vectors)):
            place = (at.point, (tile + t) * self.panel + (at.block - first) * self.packed + v * lanes)
            total = acc[t, v] + self.products.load(place, lanes) if self.weights.runs > 1 else acc[t, v]
            self.products.store(place, total)

    def _transform_products(self, block: _Block, first: Affine) -> None:
        """y = A^T M A for the tiles of a block and a panel of maps, and the epilogue of each."""
        start = first * self.width
        if self.region.bands:
            self._begin_bands(block, start)
        for reach in product(*(runs(axis, axis.tiles) for axis in self._result_axes)):
            with self._each_tile(block, *reach) as place:

                def finish(
                    vector: Affine, count: int, place: _Block = place, reach: tuple[Run, ...] = reach
                ) -> None:
                    self._result_vector(block, place, reach, (start, vector), count)

                self._panel_vectors(start, finish)

    def _panel_vectors(self, start: Affine, body: Callable[[Affine, int], None]) -> None:
        """`body` for the vectors of maps, by their numbers and valid lanes, of the panel that begins with
        number `start`."""
        stop = start + self.blocks.panel * self.width
        vectors, rest = divmod(self.maps, self.map_lanes)
        is_cut = vectors < -(-self.maps // self.packed) * self.width
        if vectors:
            with self.k.loop("vector", start, (stop, vectors) if is_cut else stop) as vector:
                body(vector, self.map_lanes)
        if rest:
            with self.k.loop("vector", (start, vectors), (stop, vectors + 1)) as vector:
                body(vector, rest)

    def _begin_bands(self, block: _Block, start: Affine) -> None:
        """Set the sums of a block's rows of tiles, its bands, to zero, for a panel of maps."""
        (images, rows, _), lanes = self.blocks.blocking.counts, self.map_lanes
        sizes = self.blocks.blocking.sizes
        with (
            loop_over(self.k, "n", Run(0, images, (0,)), block[0], sizes[0]) as n,
            loop_over(self.k, "y", Run(0, rows, (0,)), block[1], sizes[1]) as y,
        ):
            epilogue = Epilogue(self.k, self.region, self.arguments, y)
            self._panel_vectors(start, lambda v, count: epilogue.begin(n, v * lanes, count, lanes))

    def _result_vector(
        self, block: _Block, place: _Block, reach: tuple[Run, ...], at: tuple[Affine, Affine], count: int
    ) -> None:
        """A vector of maps of one tile, finished as soon as whole rows of windows are there."""
        axes, width = self._result_axes, self._columns
        (n, y, x), (mh, mw), (start, vector) = place, self.op.tile, at
        tile = self.order.position(place, block, axes, reach)
        position = tile * self.panel + (vector - start) * self.map_lanes
        rows, columns = self.order.algorithms(axes, reach)
        epilogue, height = Epilogue(self.k, self.region, self.arguments, y), self.region.window[0]
        values: dict[Point, Vec] = {}
        pixels = product(range(mh), range(mw, 2 * mw))  # of the next tile
        epilogue.prefetch(point(n, vector * self.map_lanes, y * mh + i, x * mw + j) for i, j in pixels)

        def load(i: int, j: int) -> Vec:
            return self.products.load((i * width + j, position), self.map_lanes)

        def store(i: int, j: int, value: Vec) -> None:
            if i in reach[0].inside and j in reach[1].inside:
                values[point(n, vector * self.map_lanes, y * mh + i, x * mw + j)] = value
            if values and (i + 1) % height == 0 and j + 1 == len(columns.result):
                epilogue.finish(values, count)
                values.clear()

        transform_tile(self.k, (rows.result,), (columns.result,), self.map_lanes, load, store)
