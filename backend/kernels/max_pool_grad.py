"""Gradients of max pooling, channels last: the first place of a window that holds its largest value gets
its dy.

Small windows are max_pool_sweep.py's. Large ones that cover the map exactly once are computed one by one.
Where they overlap or leave gaps, an iteration of the parallel nest computes a band of an image's cells
(pool_cells.py). First it finds for every window of the band the number of that place, and keeps it in scratch
memory; then every place adds up the dy of the windows whose number is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cnnc.backend.kernel.builder import BufferHandle, Tile, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.fetch import Fetcher
from cnnc.backend.kernels.loops import nest
from cnnc.backend.kernels.max_pool_sweep import swept_max_pool2d_grad
from cnnc.backend.kernels.pool_cells import Channels, PoolGrad, Run, each_place, finish_run, windows_rows
from cnnc.backend.kernels.site import Site
from cnnc.backend.kernels.windows import Pixels

ITERATIONS = 16
"""Iterations of the parallel nest to aim at."""

NOWHERE = -1.0
"""The number of no place: of a window that holds a NaN."""


def max_pool2d_grad(site: Site) -> Kernel:
    """dy, x, y -> dx: the first place of a window whose x is y gets its dy."""
    grad = PoolGrad.of(site)
    if grad.windows.are_small:
        return swept_max_pool2d_grad(grad)
    return _max_of_tiles(grad) if grad.windows.tile else _Bands(grad).build()


def _max_of_tiles(grad: PoolGrad) -> Kernel:
    """Window by window: the place that takes the gradient leaves nothing to those behind it."""
    k, windows = grad.k, grad.windows
    with nest(k, (grad.images, windows.result[0]), parallel=True, images=grad.marked) as (image, oy):

        def window(at: Channels, ox: Affine) -> None:
            x, y = grad.pixels(1, at), grad.pixels(2, at).load(oy, ox)
            rest = k.register("rest", at.lanes, (1,))
            rest[0,] = grad.pixels(0, at).load(oy, ox)

            def row(r: Affine) -> None:
                line, values = windows.row(oy, r), []
                for s in range(windows.kernel[1]):
                    column = windows.column(ox, s)
                    found = x.load(line, column)
                    values.append((column, k.compute("select_eq", found, y, rest[0,], 0.0)))
                    rest[0,] = k.compute("select_eq", found, y, 0.0, rest[0,])
                grad.finish(at, line, values)

            windows.each_row(k, oy, True, row)

        with k.loop("ox", 0, windows.result[1]) as ox:
            grad.vectors(image, lambda at: window(at, ox))
    return k.build()


@dataclass(frozen=True)
class _Bands:
    """Writes the gradient of overlapping windows. Cells are counted with the padding."""

    grad: PoolGrad

    @cached_property
    def before(self) -> int:
        """How many rows of windows in front of a cell's own have its places."""
        return (self.grad.windows.kernel[0] - 1) // self.grad.windows.stride[0]

    @cached_property
    def height(self) -> int:
        """Rows of cells of a band: what it reads, and the numbers, stay in the second-level cache."""
        windows, target = self.grad.windows, self.grad.region.site.target
        row = 4 * self.channels * (windows.stride[0] * windows.size[1] + 3 * windows.result[1])
        fitting = target.l2_bytes * 3 // 4 // row - self.before
        wanted = -(-len(self.grad.cells) * self.grad.images // ITERATIONS)
        return max(1, min(fitting, wanted, len(self.grad.cells)))

    @cached_property
    def channels(self) -> int:
        """Of whole vectors."""
        channels = self.grad.region.result.type.shape[1]
        lanes = self.grad.region.site.lanes(channels)
        return -(-channels // lanes) * lanes

    def build(self) -> Kernel:
        k, windows = self.grad.k, self.grad.windows
        bands = -(-len(self.grad.cells) // self.height)
        numbers = k.scratch("numbers", (self.height + self.before, windows.result[1], self.channels))
        with nest(k, (self.grad.images, bands), parallel=True, images=self.grad.marked) as (image, band):
            first = band * self.height + self.grad.cells.start
            self._fetch(image, first)
            places = _Places(self.grad, numbers, first - self.before)
            last = windows.result[0], first + self.height
            with k.loop("oy", (0, first - self.before), last) as oy:
                places.find(image, oy)
            with k.loop("row", first, (first + self.height, self.grad.cells.stop)) as row:
                each_place(self.grad, image, row, places.add)
        return k.build()

    def _fetch(self, image: Affine, first: Affine) -> None:
        """Fetch what the band that begins with row `first` of cells reads: of x, then of y and dy."""
        windows, channels = self.grad.windows, (0, self.grad.region.result.type.shape[1])
        fetcher, here = Fetcher.of(self.grad.k), (image, image + 1)
        dy, x, y = (self.grad.arguments.operands[self.grad.region.operand(i)] for i in range(3))
        last = first + self.height
        above, below = windows.row(first - self.before, 0), windows.row(last - 1, windows.kernel[0])
        fetcher.fetch([x], here, ((0, above), (windows.size[0], below)), (0, windows.size[1]), channels)
        rows = (0, first - self.before), (windows.result[0], last)
        fetcher.fetch([y, dy], here, rows, (0, windows.result[1]), channels)


@dataclass(frozen=True)
class _Places:
    """The numbers of the places that get the windows' gradients, of the rows of windows from `first` on."""

    grad: PoolGrad
    numbers: BufferHandle
    first: Affine

    def find(self, image: Affine, row: Affine) -> None:
        """Find the numbers of a row of windows."""
        windows, registers = self.grad.windows, self.grad.region.site.target.registers

        def run(ox: Affine, taps: Sequence[range]) -> None:
            self.grad.vectors(image, lambda at: self._find(at, (row, ox), taps))

        windows.each_run(self.grad.k, registers // 4, run)

    def _find(self, at: Channels, place: tuple[Affine, Affine], taps: Sequence[range]) -> None:
        """The numbers of a run of windows: the places are visited from the last to the first."""
        k, windows, (oy, ox) = self.grad.k, self.grad.windows, place
        x, y = self.grad.pixels(1, at), self.grad.pixels(2, at)
        highest = [y.load(oy, ox + number) for number in range(len(taps))]
        found = k.register("found", at.lanes, (len(taps),), NOWHERE)
        shift, last = oy * windows.stride[0] - windows.pad[0], windows.kernel[0] - 1
        with k.loop("back", (0, shift + last + 1 - windows.size[0]), (last + 1, shift + last + 1)) as back:
            self._row(x, (oy, ox), last - back, taps, (found, highest))
        for number in range(len(taps)):
            self.numbers.store((oy - self.first, ox + number, at.channel), found[number,])

    def _row(
        self,
        x: Pixels,
        place: tuple[Affine, Affine],
        r: Affine,
        taps: Sequence[range],
        tile: tuple[Tile, list[Vec]],
    ) -> None:
        """The places in row `r` of a run of windows: what each of them holds is compared with the highest."""
        k, windows, (oy, ox), (found, highest) = self.grad.k, self.grad.windows, place, tile
        step = windows.stride[1]
        columns = sorted({number * step + s for number, window in enumerate(taps) for s in window})
        line = windows.row(oy, r)
        held = {c: x.load(line, windows.column(ox, c)) for c in columns}
        for s in reversed(range(windows.kernel[1])):
            name = self._name(r, s, x.lanes)
            for number in (n for n, window in enumerate(taps) if s in window):
                value = held[number * step + s]
                found[number,] = k.compute("select_eq", value, highest[number], name, found[number,])

    def _name(self, r: Affine, s: int, lanes: int) -> Vec:
        """The number of a place of a window."""
        number = r * self.grad.windows.kernel[1] + s
        return self.grad.k.broadcast(self.grad.k.index(number, 1), lanes)

    def add(self, run: Run, at: Channels) -> None:
        """Add up what the places of a run get, and finish them."""
        k, (step, wide) = self.grad.k, (self.grad.windows.stride[1], self.grad.windows.kernel[1])
        dy, wanted = self.grad.pixels(0, at), {c: i for i, c in enumerate(run.columns)}
        sums = k.register("sum", at.lanes, (len(wanted),))
        with windows_rows(self.grad, run) as (oy, tap):
            names = [self._name(tap, s, at.lanes) for s in range(wide)]
            for d, taps in run.windows:
                number = self.numbers.load((oy - self.first, run.column + d, at.channel), at.lanes)
                given = dy.load(oy, run.column + d)
                for i, s in ((wanted[d * step + s], s) for s in taps if d * step + s in wanted):
                    sums[i,] = sums[i,] + k.compute("select_eq", number, names[s], given, 0.0)
        finish_run(self.grad, run, at, [sums[i,] for i in range(len(wanted))])
