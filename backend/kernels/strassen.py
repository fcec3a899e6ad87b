"""Convolutions of one tap by Strassen's method: sums, seven products and epilogue in one kernel.

The upper half of an image's pixels and the lower one are computed together, a tile of each at a time. An
iteration writes S1 to S4 of its tiles to scratch memory; then for one block of maps after the other it
computes the products of a tile in the order in which their weights lie. What one result has in common with
the next stays in registers, or waits in scratch memory (ops/strassen.py has the formulas). Each quarter of
the results goes to the epilogue as soon as it is complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

from cnnc.backend.kernel.builder import KernelBuilder, Tile, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.contraction import Contraction, as_images
from cnnc.backend.kernels.loops import vectors
from cnnc.backend.kernels.prologue import Loader
from cnnc.backend.kernels.region import Epilogue, Point, Region, point
from cnnc.backend.kernels.runs import Run, loop_over
from cnnc.backend.kernels.site import Site, Tensor
from cnnc.backend.kernels.strassen_blocks import GIVEN, SUMS, Work, cut, halves_lanes
from cnnc.backend.kernels.tiles import usable_registers
from cnnc.backend.kernels.winograd_filters import with_lanes
from cnnc.backend.kernels.winograd_operand import PREFETCH_BYTES
from cnnc.errors import UnsupportedError
from cnnc.ops.strassen import StrassenConv2d

Element = Callable[[int, Affine], Vec]
"""The broadcast element of a row of a tile and a channel."""

Quarter = tuple[int, int]
"""Whether of the lower half of the pixels, and whether of the second half of channels or maps."""


def strassen_conv2d(site: Site) -> Kernel:
    """y [N,H,W,K] of x [N,H,W,C] and u [K/2/B,7,C/2,B]; for B = 1 without the last axis. Raises
    UnsupportedError for blocks that do not divide a half of the maps, and for a pool in the epilogue or sums
    in bands that are not images."""
    region = Region(site)
    assert isinstance(region.anchor, StrassenConv2d)
    x, u = region.anchor_tensor(0), region.anchor_tensor(1)
    _, channels, maps = u.shape
    if maps % u.layout.block or region.window != (1, 1):
        raise UnsupportedError(f"{region.anchor.name}: {u.layout} must halve the maps, and no pool follow")
    region.expect_bands(lambda rows: rows == x.shape[2])
    size = 1, x.shape[2] * x.shape[3]
    shape = Contraction(x.shape[0], 1, 2 * channels, 2 * maps, size, size, (1, 1))
    numbers = {i for i, t in enumerate(site.operands) if t.type.rank == 4}
    return _Strassen(as_images(site, shape, lambda i: i in numbers, region.summed), shape).build()


@dataclass(frozen=True)
class _Run:
    """Tiles of the same size: which, and their rows in the upper and in the lower half."""

    tiles: Run
    upper: int
    lower: int


@dataclass(frozen=True)
class _Tile:
    """Where a tile stands: its image, the pixel of its first row in the upper half, that row's place among
    the sums, its block of maps, and its rows in both halves."""

    image: Affine
    pixel: Affine
    place: Affine
    block: Affine
    upper: int
    lower: int


@dataclass(frozen=True)
class _Asking:
    """Of which quarters lines are asked for while a product is computed: of the source of the next part, and
    of what the epilogue reads."""

    source: Quarter | None
    result: Quarter | None

    def stretches(self, channels: int, maps: int) -> Iterator[tuple[int, _Asking]]:
        """Up to which of the channels, which are whole lines, to ask for what: of the epilogue's operands the
        lines of a block of `maps`, of the source all."""
        first = min(-(-maps // LINE) * LINE, channels) if self.result else 0
        if first:
            yield first, self
        if self.source and first < channels:
            yield channels, replace(self, result=None)


class _Strassen:
    """Writes one convolution."""

    def __init__(self, site: Site, shape: Contraction) -> None:
        self.site, self.shape, self.region = site, shape, Region(site)
        self.k = KernelBuilder(self.region.body.name if self.region.epilogue else site.op.name)
        weights = self.region.anchor_tensor(1)

        def view(tensor: Tensor) -> tuple[int, ...]:
            return with_lanes(tensor) if tensor is weights else tensor.physical

        self.arguments = self.region.declare(self.k, view)
        self.source = Loader.of(self.k, self.region, self.arguments, 0)
        self.weights = self.arguments.operands[self.region.operand(1)]
        self.tensor, self.block = self.region.anchor_tensor(0), weights.layout.block
        self.channels, self.maps, self.half = shape.channels // 2, shape.maps // 2, -(-shape.result[1] // 2)
        self.lanes = min(halves_lanes(site.target, self.maps), self.block)
        self.width = self.block // self.lanes
        is_made = self.region.has_prologue
        work = Work(shape.batch, self.half, self.channels, self.maps, self.block, is_made)
        self.is_streamed = work.weight_bytes > site.target.l2_bytes // 16
        images, self.is_summed = 1 if site.images else shape.batch, self.region.bands is not None
        self.cut = cut(site.target, work, images, whole=self.is_summed)
        self.epilogue = Epilogue(self.k, self.region, self.arguments, affine(0))
        self.sums = self.k.scratch("sums", (work.kept, self.cut.part * self.cut.rows, work.pitch))
        self.kept = self.k.scratch("kept", (2, self.cut.rows, self.block))

    def build(self) -> Kernel:
        k, blocks = self.k, self.maps // self.block
        with (
            k.once_or_loop("share", -(-blocks // self.cut.share), parallel=True) as share,
            k.loop("n", 0, self.shape.batch, parallel=True, images=self.site.each_image) as image,
        ):
            first = share * self.cut.share
            stop = affine(blocks), first + self.cut.share
            if self.is_summed:
                self._begin(image, first, stop)
            with k.once_or_loop("part", self.cut.parts, parallel=not self.is_summed) as part:
                self._sum(image, part)
                if self.is_far:
                    self._tiles(image, part, first, ahead=True)
                with k.loop("block", first + int(self.is_far), stop) as block:
                    self._tiles(image, part, block)
        return k.build()

    def _begin(self, image: Affine, first: Affine, stop: tuple[Affine, Affine]) -> None:
        """Set the sums of an image to zero, for a share of the blocks of maps in both halves."""
        with self.k.loop("block", first, stop) as block:
            for half in range(2):
                channel = block * self.block + half * self.maps
                self.epilogue.begin(image, channel, self.block, self.lanes)

    def _tiles(self, image: Affine, part: Affine, block: Affine, ahead: bool = False) -> None:
        """The tiles of a part for a block of maps; `ahead` says to ask for the source of the next part."""
        for run in self._runs():
            for tile in self._each_tile(image, part, block, run):
                self._tile(tile, ahead)

    @cached_property
    def is_far(self) -> bool:
        """Whether the source comes from memory."""
        return self.tensor.type.nbytes > self.site.target.l2_bytes

    def _runs(self) -> Iterator[_Run]:
        """The tiles, and the last one where it has fewer rows; of an odd number of pixels it has one less in
        the lower half."""
        rows, tiles, is_odd = self.cut.rows, self.cut.tiles, self.shape.result[1] % 2
        last = self.half - rows * (tiles - 1)
        whole = tiles if last == rows and not is_odd else tiles - 1
        if whole:
            yield _Run(Run(0, whole, ()), rows, rows)
        if whole < tiles:
            yield _Run(Run(whole, 1, ()), last, last - is_odd)

    def _each_tile(self, image: Affine, part: Affine, block: Affine, run: _Run) -> Iterator[_Tile]:
        """A loop over the tiles of a run that are in a part."""
        with loop_over(self.k, "tile", run.tiles, part, self.cut.part) as number:
            pixel = number * self.cut.rows
            place = pixel - part * (self.cut.part * self.cut.rows)
            yield _Tile(image, pixel, place, block, run.upper, run.lower)

    def _sum(self, image: Affine, part: Affine) -> None:
        """S1 to S4 of the tiles of a part; of an odd number of pixels one has no partner."""
        for run in self._runs():
            for tile in self._each_tile(image, part, part, run):
                if tile.lower:
                    with self.k.loop("row", 0, tile.lower) as row:
                        self._sum_row(tile, row, is_paired=True)
                if tile.lower < tile.upper:
                    self._sum_row(tile, affine(tile.lower), is_paired=False)

    def _sum_row(self, tile: _Tile, row: Affine, is_paired: bool) -> None:
        """S1 to S4 of a row of a tile, behind them the quarters that are read as they are if they are made. A
        partner that is not there is zero."""
        lanes = self.site.lanes(self.channels)
        zero = self.k.constant(0.0, lanes)

        def add(start: Affine, count: int) -> None:
            halves = [start + half * self.channels for half in range(2)]
            loads = [self.source.at(channel, lanes, count) for channel in halves]

            def load(half: int, pixel: Affine) -> Vec:
                return loads[half](self.tensor.place((tile.image, halves[half], affine(0), pixel)))

            a11, a12 = (load(half, tile.pixel + row) for half in range(2))
            if is_paired:
                a21, a22 = (load(half, tile.pixel + row + self.half) for half in range(2))
                s1 = a21 + a22
                s2, s3 = s1 - a11, a11 - a21
            else:
                s1, a22 = zero, zero
                s2, s3 = s1 - a11, a11
            made = (a11, a12, a22) if self.region.has_prologue else ()
            for number, value in enumerate((s1, s2, s3, a12 - s2, *made)):
                self.sums.store((number, tile.place + row, start), value, count)

        vectors(self.k, self.channels, lanes, add)

    def _tile(self, tile: _Tile, ahead: bool) -> None:
        """The four quarters of the results of a tile, for a block of maps. The source of a part is read at
        once when it is summed, and is asked for before, while the products of the first block are computed;
        what the epilogue reads is asked for before the products that it follows."""
        upper, lower = tile.upper, tile.lower
        acc = self.k.register("acc", self.lanes, (upper, self.width))
        sources = itertools.product(range(2), range(2)) if ahead else iter(())

        def multiply(product: int, rows: int, element: Element, result: Quarter | None = None) -> None:
            asking = _Asking(next(sources, None), result if self.region.large_maps else None)
            self._multiply(acc, tile, (product, rows), element, asking)

        multiply(0, upper, self._given(tile, 0, 0), result=(0, 0))
        self._keep(acc, 0, upper)
        multiply(1, upper, self._given(tile, 0, 1))
        self._finish(acc, tile, (0, 0))
        self._assign(acc, upper, partial(self._kept, 0))
        multiply(2, upper, self._sum_of(tile, 1), result=(1, 0))
        self._keep(acc, 0, upper)
        multiply(3, lower, self._sum_of(tile, 2), result=(1, 1))
        self._keep(acc, 1, lower)
        multiply(4, lower, self._given(tile, 1, 1))
        self._finish(acc, tile, (1, 0))
        self._assign(acc, upper, lambda row, v: self.k.constant(0.0, self.lanes))
        multiply(5, upper, self._sum_of(tile, 0), result=(0, 1))
        self._finish(acc, tile, (1, 1), kept=1)
        self._assign(acc, upper, lambda row, v: acc[row, v] + self._kept(0, row, v))
        multiply(6, upper, self._sum_of(tile, 3))
        self._finish(acc, tile, (0, 1))

    def _given(self, tile: _Tile, rows: int, channels: int) -> Element:
        """Elements of a quarter of the source."""
        if self.region.has_prologue:
            return self._sum_of(tile, SUMS + GIVEN.index((rows, channels)))
        pixel, first = tile.pixel + rows * self.half, channels * self.channels

        def element(row: int, channel: Affine) -> Vec:
            place = self.tensor.place((tile.image, channel + first, affine(0), pixel + row))
            return self.source.handle.splat(place, self.lanes)

        return element

    def _sum_of(self, tile: _Tile, number: int) -> Element:
        """Elements of one of S1 to S4, which are numbered from 0, or of what stands behind them."""
        return lambda row, channel: self.sums.splat((number, tile.place + row, channel), self.lanes)

    def _multiply(
        self, acc: Tile, tile: _Tile, product: tuple[int, int], element: Element, asking: _Asking
    ) -> None:
        """Add a product, of its number, to that many rows of the accumulators, two channels in an iteration:
        then less goes to the loop."""
        number, rows = product
        full = rows * self.width + self.width + 1 >= usable_registers(self.site.target)

        def step(channel: Affine) -> None:
            if self.is_streamed:
                self._prefetch(tile.block, number, channel)
            weights = [
                self.weights.load((tile.block, number, channel, v * self.lanes), self.lanes)
                for v in range(self.width)
            ]
            for row in range(rows):
                value = element(row, channel)
                for v, weight in enumerate(weights):
                    acc[row, v] = self.k.fma(value, weight, acc[row, v])

        def step_asking(asking: _Asking, line: Affine, place: Affine) -> None:
            self._ask(asking, tile, line, place)
            step(line + place)

        if not rows:
            return
        factor, start, whole = 1 if full else 2, 0, self.channels // LINE * LINE
        for stop, wanted in asking.stretches(whole, self.block):
            with self.k.loop("line", start, stop, LINE) as line:
                self.k.unrolled("c", LINE, factor, partial(step_asking, wanted, line))
            start = stop
        self.k.unrolled("c", self.channels - start, factor, lambda c: step(c + start))

    def _ask(self, asking: _Asking, tile: _Tile, line: Affine, row: Affine) -> None:
        """Ask for a line of every LINE-th row, from a row on: of the source of the tile's counterpart in the
        next part, or image; of what the epilogue will read for the tile."""
        if asking.source:
            lower, channels = asking.source
            distance = self.cut.part * self.cut.rows if self.cut.parts > 1 else self.shape.result[1]
            for first in range(0, tile.upper, LINE):
                pixel = tile.pixel + row + (lower * self.half + distance + first)
                place = tile.image, line + channels * self.channels, affine(0), pixel
                self.source.handle.prefetch(self.tensor.place(place))
        if asking.result:
            points = self._points(tile, asking.result, 0)[::LINE]
            self.epilogue.prefetch(point(n, channel + line, y, x + row) for n, channel, y, x in points)

    def _prefetch(self, block: Affine, product: int, channel: Affine) -> None:
        """Ask for weights that come from behind the second-level cache, which may be the next product's."""
        ahead = channel + PREFETCH_BYTES // (4 * self.block)
        for line in range(0, self.block, LINE):
            self.weights.prefetch((block, product, ahead, line))

    def _keep(self, acc: Tile, number: int, rows: int) -> None:
        for row, v in itertools.product(range(rows), range(self.width)):
            self.kept.store((number, row, v * self.lanes), acc[row, v])

    def _kept(self, number: int, row: int, vector: int) -> Vec:
        return self.kept.load((number, row, vector * self.lanes), self.lanes)

    def _assign(self, acc: Tile, rows: int, value: Callable[[int, int], Vec]) -> None:
        """Give the accumulators the values of their rows and vectors."""
        for row, v in itertools.product(range(rows), range(self.width)):
            acc[row, v] = value(row, v)

    def _finish(self, acc: Tile, tile: _Tile, quarter: Quarter, kept: int | None = None) -> None:
        """Hand a quarter of the results to the epilogue, with what was kept added."""
        for v in range(self.width):
            values = {}
            for row, place in enumerate(self._points(tile, quarter, v)):
                value = acc[row, v]
                values[place] = value if kept is None else value + self._kept(kept, row, v)
            if values:
                self.epilogue.finish(values, self.lanes)

    def _points(self, tile: _Tile, quarter: Quarter, vector: int) -> list[Point]:
        """A vector of maps of every pixel of a quarter of a tile."""
        (lower, second), rows = quarter, (tile.upper, tile.lower)
        channel = tile.block * self.block + (second * self.maps + vector * self.lanes)
        pixel = tile.pixel + lower * self.half
        return [point(tile.image, channel, 0, pixel + row) for row in range(rows[lower])]
