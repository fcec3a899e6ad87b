"""Gradients of max and mean pooling: every window's gradient goes to places of its map, channels last.

Windows that cover the map exactly once are written straight to the result. Others overlap or leave
gaps: their rows of the map are zeroed just before the first window adds to them, and go through the
epilogue just behind the last, while they are in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cnnc.backend.kernel.builder import Bound, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import nest, vectors
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.site import Arguments, Site, Tensor, declare
from cnnc.backend.kernels.windows import Pixels, Windows
from cnnc.ops.pool import MaxPool2dGrad, MeanPool2dGrad

Share = Callable[[Affine, Affine], Vec]
"""What the place at row y, column x of the map gets from a window; places are asked in row-major order."""


@dataclass(frozen=True)
class _Vector:
    """One vector of channels of one window: which image, which window, which channels."""

    image: Affine
    oy: Affine
    ox: Affine
    channel: Affine
    lanes: int
    count: int


def max_pool2d_grad(site: Site) -> Kernel:
    """dy, x, y -> dx: the first place of a window whose x is y gets its dy."""
    kernel = _Spread.of(site)

    def share(at: _Vector) -> Share:
        k = kernel.k
        rest = k.register("rest", at.lanes, (1,))
        rest[0,] = kernel.pixels(0, at).load(at.oy, at.ox)
        y, x = kernel.pixels(2, at).load(at.oy, at.ox), kernel.pixels(1, at)

        def place(row: Affine, column: Affine) -> Vec:
            found = x.load(row, column)
            given = k.compute("select_eq", found, y, rest[0,], 0.0)
            rest[0,] = k.compute("select_eq", found, y, 0.0, rest[0,])
            return given

        return place

    return kernel.build(share)


def mean_pool2d_grad(site: Site) -> Kernel:
    """dy -> dx: every place of a window gets dy / (Kh * Kw)."""
    kernel = _Spread.of(site)
    part = 1.0 / kernel.windows.taps

    def share(at: _Vector) -> Share:
        value = kernel.pixels(0, at).load(at.oy, at.ox) * part
        return lambda row, column: value

    return kernel.build(share)


@dataclass(frozen=True)
class _Spread:
    """A kernel that gives every window's shares to the map; `build` writes it."""

    k: KernelBuilder
    region: Region
    arguments: Arguments
    windows: Windows

    @classmethod
    def of(cls, site: Site) -> _Spread:
        region = Region(site)
        op = region.anchor
        assert isinstance(op, MaxPool2dGrad | MeanPool2dGrad)
        windows = Windows.of(op, region.result.type, region.anchor_tensor(0).type)
        k = KernelBuilder(op.name)
        return cls(k, region, declare(k, site, read_back=not windows.tile), windows)

    @property
    def dx(self) -> Tensor:
        return self.region.site.results[0]

    def pixels(self, operand: int, at: _Vector) -> Pixels:
        """Channels of an operand of the anchor."""
        handle = self.arguments.operands[self.region.operand(operand)]
        return Pixels(handle, self.region.anchor_tensor(operand), at.image, at.channel, at.lanes, at.count)

    def build(self, share: Callable[[_Vector], Share]) -> Kernel:
        images, rows = self.dx.shape[0], self.windows.result[0]
        if self.windows.tile:
            with nest(self.k, (images, rows), parallel=True) as (image, oy):
                self._each_vector(image, oy, lambda at, taps: self._write(at, taps, share(at)))
            return self.k.build()
        with self.k.loop("i", 0, images, parallel=True) as image:
            self._image(image, share)
        return self.k.build()

    def _each_vector(self, image: Affine, oy: Affine, body: Callable[[_Vector, Sequence[int]], None]) -> None:
        """`body` for the vectors of a row of windows, with the columns of the window on the map."""
        channels = self.dx.shape[1]
        lanes = self.region.site.lanes(channels)

        def column(ox: Affine, taps: Sequence[int]) -> None:
            def tile(start: Affine, count: int) -> None:
                body(_Vector(image, oy, ox, start, lanes, count), taps)

            vectors(self.k, channels, lanes, tile)

        self.windows.each_column(self.k, column)

    def _write(self, at: _Vector, taps: Sequence[int], share: Share) -> None:
        """Finish the places of a window that has them for itself."""
        epilogue = Epilogue(self.k, self.region, self.arguments)

        def row(r: Affine) -> None:
            y = self.windows.row(at.oy, r)
            columns = [self.windows.column(at.ox, s) for s in taps]
            epilogue.finish({point(at.image, at.channel, y, x): share(y, x) for x in columns}, at.count)

        self.windows.each_row(self.k, at.oy, row)

    def _add(self, at: _Vector, taps: Sequence[int], share: Share) -> None:
        """Add a window's shares to what is in the result."""
        dx = Pixels(self.arguments.results[0], self.dx, at.image, at.channel, at.lanes, at.count)

        def row(r: Affine) -> None:
            y = self.windows.row(at.oy, r)
            for x in [self.windows.column(at.ox, s) for s in taps]:
                dx.store(y, x, dx.load(y, x) + share(y, x))

        self.windows.each_row(self.k, at.oy, row)

    def _image(self, image: Affine, share: Callable[[_Vector], Share]) -> None:
        """Rows of windows in order; before each, zero the rows of the map that it is the first to
        reach, behind each, finish those that it is the last to reach."""
        windows, height = self.windows, self.dx.shape[2]
        step, top = windows.stride[0], windows.pad[0]
        reach = max(windows.kernel[0], step) - top
        zero = self._zero
        self._rows(image, 0, min(height, max(0, reach - step)), zero)
        with self.k.loop("oy", 0, windows.result[0]) as oy:
            self._rows(image, (0, oy * step + (reach - step)), (height, oy * step + reach), zero)
            self._each_vector(image, oy, lambda at, taps: self._add(at, taps, share(at)))
            self._rows(image, (0, oy * step - top), (height, (oy + 1) * step - top), self._finish)
        last = (windows.result[0] - 1) * step
        self._rows(image, min(height, last + reach), height, zero)
        self._rows(image, min(height, last + step - top), height, self._finish)

    def _rows(
        self, image: Affine, start: Bound, stop: Bound, body: Callable[[Pixels, Affine, Affine], None]
    ) -> None:
        """`body` for all pixels of some rows of the map, unless there is nothing to do."""
        if start == stop or (body == self._finish and not self.region.epilogue):
            return
        _, channels, _, width = self.dx.shape
        lanes = self.region.site.lanes(channels)
        with self.k.loop("y", start, stop) as y, self.k.loop("x", 0, width) as x:

            def tile(channel: Affine, count: int) -> None:
                dx = Pixels(self.arguments.results[0], self.dx, image, channel, lanes, count)
                body(dx, y, x)

            vectors(self.k, channels, lanes, tile)

    def _zero(self, dx: Pixels, y: Affine, x: Affine) -> None:
        dx.store(y, x, self.k.constant(0.0, dx.lanes))

    def _finish(self, dx: Pixels, y: Affine, x: Affine) -> None:
        epilogue = Epilogue(self.k, self.region, self.arguments)
        epilogue.finish({point(dx.image, dx.channel, y, x): dx.load(y, x)}, dx.count)
