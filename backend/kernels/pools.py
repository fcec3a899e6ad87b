"""Max and mean pooling of channels-last maps: vectors of channels for the places of the windows.

Small windows are computed several at a time, side by side: each column of the map under them is
combined first, once for all windows it belongs to. Large windows, such as one over the whole map, are
computed for several vectors of channels at a time, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import Tiles, nest, parallel_tiles, vectors
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.shares import Shares
from cnnc.backend.kernels.site import Arguments, Site, declare
from cnnc.backend.kernels.windows import Pixels, Windows
from cnnc.ops.pool import MaxPool2d, MeanPool2d

UNROLL = 2
"""Columns of a large window in one iteration."""


def max_pool2d(site: Site) -> Kernel:
    """y = the largest x of each window; the padding is not looked at."""
    k = KernelBuilder(MaxPool2d.name)
    return _Pooling.of(k, site, -math.inf, k.max).build()


def mean_pool2d(site: Site) -> Kernel:
    """y = the sum of x over each window, over its counted elements."""
    k = KernelBuilder(MeanPool2d.name)
    return _Pooling.of(k, site, 0.0, Vec.__add__).build()


@dataclass(frozen=True)
class _Pooling:
    """The kernel that combines the places of every window, of which `initial` is the neutral value."""

    k: KernelBuilder
    region: Region
    arguments: Arguments
    windows: Windows
    shares: Shares | None
    initial: float
    combine: Callable[[Vec, Vec], Vec]

    @classmethod
    def of(cls, k: KernelBuilder, site: Site, initial: float, combine: Callable[[Vec, Vec], Vec]) -> _Pooling:
        region = Region(site)
        op, x, y = region.anchor, region.anchor_tensor(0).type, region.result.type
        assert isinstance(op, MaxPool2d | MeanPool2d)
        shares = Shares.of(k, op, x, y) if isinstance(op, MeanPool2d) else None
        return cls(k, region, declare(k, site), Windows.of(op, x, y), shares, initial, combine)

    def build(self) -> Kernel:
        images, channels, rows, _ = self.region.result.type.shape
        lanes = self.region.site.lanes(channels)
        marked = self.region.site.each_image
        with nest(self.k, (images, rows), parallel=True, images=marked) as (image, oy):
            if self.windows.are_small:
                self._small(image, oy, channels, lanes)
            else:
                most = self.region.site.target.registers // 4
                parallel_tiles(
                    self.k, channels, lanes, most, lambda start, tiles: self._large(image, oy, start, tiles)
                )
        return self.k.build()

    def _pixels(self, image: Affine, channel: Affine, lanes: int, count: int) -> Pixels:
        handle = self.arguments.operands[self.region.operand(0)]
        return Pixels(handle, self.region.anchor_tensor(0), image, channel, lanes, count)

    def _epilogue(self) -> Epilogue:
        return Epilogue(self.k, self.region, self.arguments)

    def _small(self, image: Affine, row: Affine, channels: int, lanes: int) -> None:
        """A row of small windows, in runs whose columns fit the registers."""
        registers = self.region.site.target.registers
        (_, wide), (_, step) = self.windows.kernel, self.windows.stride
        most = max(1, min(registers // 4, (registers - 4 - wide) // step + 1))

        def windows_row(oy: Affine, whole: bool) -> None:
            def run(ox: Affine, taps: Sequence[range]) -> None:
                def tile(start: Affine, count: int) -> None:
                    pixels = self._pixels(image, start, lanes, count)
                    columns = self._columns(pixels, oy, whole, ox, taps)
                    results = {}
                    for number, window in enumerate(taps):
                        value = reduce(self.combine, [columns[number * step + s] for s in window])
                        if self.shares is not None:
                            value = value * self.shares.of_window(oy, whole, ox + number, window, lanes)
                        results[point(image, start, oy, ox + number)] = value
                    self._epilogue().finish(results, count)

                vectors(self.k, channels, lanes, tile, unroll=1)

            self.windows.each_run(self.k, most, run)

        self.windows.split_rows(self.k, row, windows_row)

    def _columns(
        self, pixels: Pixels, oy: Affine, whole: bool, ox: Affine, taps: Sequence[range]
    ) -> dict[int, Vec]:
        """Each column of the map under a run of windows, its rows combined; by its number from the run's
        first column on."""
        step = self.windows.stride[1]
        wanted = sorted({number * step + s for number, window in enumerate(taps) for s in window})
        places = {c: self.windows.column(ox, c) for c in wanted}
        if whole:
            rows = [self.windows.row(oy, r) for r in range(self.windows.kernel[0])]
            return {c: reduce(self.combine, [pixels.load(y, x) for y in rows]) for c, x in places.items()}
        columns = self.k.register("column", pixels.lanes, (len(wanted),), self.initial)

        def row(r: Affine) -> None:
            for i, x in enumerate(places.values()):
                columns[i,] = self.combine(columns[i,], pixels.load(self.windows.row(oy, r), x))

        self.windows.each_row(self.k, oy, whole, row)
        return {c: columns[i,] for i, c in enumerate(wanted)}

    def _large(self, image: Affine, row: Affine, first: Affine, tiles: Tiles) -> None:
        """A row of large windows, for some vectors of channels at a time."""

        def windows_row(oy: Affine, whole: bool) -> None:
            self.windows.each_run(
                self.k, 1, lambda ox, taps: self._large_window(image, oy, whole, ox, taps[0], first, tiles)
            )

        self.windows.split_rows(self.k, row, windows_row)

    def _large_window(
        self, image: Affine, oy: Affine, whole: bool, ox: Affine, taps: range, first: Affine, tiles: Tiles
    ) -> None:
        """Rows are combined apart, which bounds the rounding error of sums."""
        lanes = self.region.site.lanes(self.region.result.type.shape[1])
        pixels = [self._pixels(image, first + start, lanes, count) for start, count in tiles]
        totals = self.k.register("total", lanes, (len(tiles),), self.initial)

        def row(r: Affine) -> None:
            parts = self.k.register("part", lanes, (len(tiles),), self.initial)
            y = self.windows.row(oy, r)

            def place(s: Affine) -> None:
                x = self.windows.column(ox, s + taps.start)
                for i, each in enumerate(pixels):
                    parts[i,] = self.combine(parts[i,], each.load(y, x))

            self.k.unrolled("s", len(taps), UNROLL, place)
            for i in range(len(tiles)):
                totals[i,] = self.combine(totals[i,], parts[i,])

        self.windows.each_row(self.k, oy, whole, row)
        for i, (start, count) in enumerate(tiles):
            value = totals[i,]
            if self.shares is not None:
                value = value * self.shares.of_window(oy, whole, ox, taps, lanes)
            self._epilogue().finish({point(image, first + start, oy, ox): value}, count)
