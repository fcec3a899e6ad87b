"""Gradients of max and mean pooling, channels last: every place of the map gathers from its windows.

Windows that cover the map exactly once are computed one by one. Where windows overlap or leave gaps the
map is cut into cells of stride rows by stride columns: a cell's places belong to the same few windows,
of which the last begins with the cell. So every place is written once, by the iteration that owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce

from cnnc.backend.kernel.builder import KernelBuilder, Tile, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.loops import nest, vectors
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.shares import Shares
from cnnc.backend.kernels.site import Arguments, Site, declare
from cnnc.backend.kernels.windows import Pixels, Windows, each_step
from cnnc.ops.pool import MaxPool2dGrad, MeanPool2dGrad


def max_pool2d_grad(site: Site) -> Kernel:
    """dy, x, y -> dx: the first place of a window whose x is y gets its dy."""
    grad = _Grad.of(site)
    if grad.windows.tile:
        return _max_of_tiles(grad)
    return _gather(grad, lambda run, vector: _max_of_run(grad, run, vector))


def mean_pool2d_grad(site: Site) -> Kernel:
    """dy -> dx: every place of a window gets its dy over the window's counted elements."""
    grad = _Grad.of(site)
    op = grad.region.anchor
    assert isinstance(op, MeanPool2dGrad)
    shares = Shares.of(grad.k, op, grad.region.result.type, grad.region.anchor_tensor(0).type)
    if grad.windows.tile:
        return _mean_of_tiles(grad, shares)
    return _gather(grad, lambda run, vector: _mean_of_run(grad, shares, run, vector))


@dataclass(frozen=True)
class _Vector:
    """Channels of an image."""

    image: Affine
    channel: Affine
    lanes: int
    count: int


@dataclass(frozen=True)
class _Grad:
    """The kernel under construction, and the windows of its op."""

    k: KernelBuilder
    region: Region
    arguments: Arguments
    windows: Windows

    @classmethod
    def of(cls, site: Site) -> _Grad:
        region = Region(site)
        op = region.anchor
        assert isinstance(op, MaxPool2dGrad | MeanPool2dGrad)
        k = KernelBuilder(op.name)
        windows = Windows.of(op, region.result.type, region.anchor_tensor(0).type)
        return cls(k, region, declare(k, site), windows)

    @property
    def images(self) -> int:
        return self.region.result.type.shape[0]

    def pixels(self, operand: int, at: _Vector) -> Pixels:
        """Channels of an operand of the anchor."""
        handle = self.arguments.operands[self.region.operand(operand)]
        return Pixels(handle, self.region.anchor_tensor(operand), at.image, at.channel, at.lanes, at.count)

    def finish(self, at: _Vector, y: Affine, values: Sequence[tuple[Affine, Vec]]) -> None:
        """Finish the vectors of some columns of row `y`."""
        points = {point(at.image, at.channel, y, x): value for x, value in values}
        Epilogue(self.k, self.region, self.arguments).finish(points, at.count)

    @property
    def marked(self) -> int:
        """With what the loop over images is marked."""
        return self.region.site.each_image

    def vectors(self, image: Affine, body: Callable[[_Vector], None]) -> None:
        """`body` for all channels of an image."""
        channels = self.region.result.type.shape[1]
        lanes = self.region.site.lanes(channels)
        vectors(
            self.k, channels, lanes, lambda start, count: body(_Vector(image, start, lanes, count)), unroll=1
        )


def _max_of_tiles(grad: _Grad) -> Kernel:
    """Window by window: the place that takes the gradient leaves nothing to those behind it."""
    k, windows = grad.k, grad.windows
    with nest(k, (grad.images, windows.result[0]), parallel=True, images=grad.marked) as (image, oy):

        def window(at: _Vector, ox: Affine) -> None:
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


def _mean_of_tiles(grad: _Grad, shares: Shares) -> Kernel:
    """Every place copies a share of its window's gradient."""
    k, windows = grad.k, grad.windows
    share = shares.one
    assert share is not None, "windows without padding are of one size"
    with (
        nest(k, (grad.images, windows.result[0], windows.kernel[0]), True, grad.marked) as (image, oy, r),
        k.loop("ox", 0, windows.result[1]) as ox,
        k.loop("s", 0, windows.kernel[1]) as s,
    ):
        line, column = windows.row(oy, r), windows.column(ox, s)

        def place(at: _Vector) -> None:
            grad.finish(at, line, [(column, grad.pixels(0, at).load(oy, ox) * share)])

        grad.vectors(image, place)
    return k.build()


@dataclass(frozen=True)
class _Run:
    """Places of row `y` in some cells side by side, and the windows that have them.

    `row` and `column` are the cells' numbers, the first cell's; `r` is the places' row in the cell.
    `columns` are the places, counted from the first cell's first column. `windows` gives for each
    window its column, counted from the first cell's, and its columns that are on the map.
    """

    y: Affine
    row: Affine
    r: Affine
    column: Affine
    columns: tuple[int, ...]
    windows: tuple[tuple[int, range], ...]


def _gather(grad: _Grad, body: Callable[[_Run, _Vector], None]) -> Kernel:
    """`body` for every run of cells that has windows, and every vector of channels; parallel over rows of
    cells."""
    k, (height, _), (step, _) = grad.k, grad.windows.size, grad.windows.stride
    top = grad.windows.pad[0]

    def places(run: _Run, at: _Vector) -> None:
        if run.windows:
            body(run, at)
        else:
            _finish(grad, run, at, [k.constant(0.0, at.lanes)] * len(run.columns))

    def line(image: Affine, row: Affine, r: Affine) -> None:
        start = _Run(row * step + r - top, row, r, affine(0), (), ())
        _each_run(grad, start, lambda run: grad.vectors(image, lambda at: places(run, at)))

    if step == 1:
        with nest(k, (grad.images, height), parallel=True, images=grad.marked) as (image, y):
            line(image, y + top, affine(0))
        return k.build()
    with nest(k, (grad.images, -(-(height + top) // step)), True, grad.marked) as (image, row):
        above, below = top - row * step, height + top - row * step
        with k.loop("r", (0, above), (step, below)) as r:
            line(image, row, r)
    return k.build()


def _each_run(grad: _Grad, line: _Run, body: Callable[[_Run], None]) -> None:
    """`body` for runs of cells of a line: those whose windows all lie on the map share their code."""
    windows = grad.windows
    (_, wide), (_, step), (_, width), left = windows.kernel, windows.stride, windows.size, windows.pad[1]
    before, cells = (wide - 1) // step, -(-(width + left) // step)
    registers = grad.region.site.target.registers
    most = max(1, min(registers // 4, (registers - 4 - before) // (step + 1)))
    first = min(cells, before - (-left // step))
    end = max(first, min(cells, windows.result[1], (width + left - max(wide, step)) // step + 1))

    def edge(start: int, stop: int) -> None:
        for cell in range(start, stop, most):
            count = min(most, stop - cell)
            columns = (c for c in range(count * step) if 0 <= cell * step + c - left < width)
            near = (d for d in range(-before, count) if 0 <= cell + d < windows.result[1])
            on_map = tuple((d, taps) for d in near if (taps := windows.taps(cell + d)))
            body(replace(line, column=affine(cell), columns=tuple(columns), windows=on_map))

    def inner(cell: Affine, count: int) -> None:
        all_taps = tuple((d, range(wide)) for d in range(-before, count))
        body(replace(line, column=cell, columns=tuple(range(count * step)), windows=all_taps))

    edge(0, first)
    each_step(grad.k, first, end, most, inner)
    edge(end, cells)


@contextmanager
def _windows_row(grad: _Grad, run: _Run) -> Iterator[tuple[Affine, Affine]]:
    """A loop over the rows of windows that have the run's row: each with the row's number in the window."""
    (high, _), (step, _) = grad.windows.kernel, grad.windows.stride
    with grad.k.loop("oy", (0, run.row - (high - 1) // step), (grad.windows.result[0], run.row + 1)) as oy:
        tap = run.r + (run.row - oy) * step
        if high % step == 0:
            yield oy, tap
            return
        with grad.k.loop("has", 0, (1, high - tap)):
            yield oy, tap


def _max_of_run(grad: _Grad, run: _Run, at: _Vector) -> None:
    """Each window offers its gradient to its places in order, down to those of the run's row."""
    k, windows = grad.k, grad.windows
    dy, x, y = (grad.pixels(operand, at) for operand in range(3))
    step, wanted = windows.stride[1], {c: i for i, c in enumerate(run.columns)}
    sums = k.register("sum", at.lanes, (len(wanted),))
    touched = sorted({d * step + s for d, taps in run.windows for s in taps})

    def offer(rest: Tile, oy: Affine, line: Affine, take: bool) -> None:
        found = {c: x.load(line, run.column * step + c - windows.pad[1]) for c in touched}
        for number, (d, taps) in enumerate(run.windows):
            highest = y.load(oy, run.column + d)
            for s in taps:
                c = d * step + s
                if take and c in wanted:
                    given = k.compute("select_eq", found[c], highest, rest[number,], 0.0)
                    sums[wanted[c],] = sums[wanted[c],] + given
                rest[number,] = k.compute("select_eq", found[c], highest, 0.0, rest[number,])

    _prefetch(grad, run, x, y, dy)
    with _windows_row(grad, run) as (oy, tap):
        rest = k.register("rest", at.lanes, (len(run.windows),))
        for number, (d, _) in enumerate(run.windows):
            rest[number,] = dy.load(oy, run.column + d)
        with k.loop("r", (0, windows.pad[0] - oy * windows.stride[0]), tap) as r:
            offer(rest, oy, windows.row(oy, r), take=False)
        offer(rest, oy, run.y, take=True)
    _finish(grad, run, at, [sums[i,] for i in range(len(wanted))])


def _prefetch(grad: _Grad, run: _Run, x: Pixels, y: Pixels, dy: Pixels) -> None:
    """Ask for what the next run of cells is the first to read: so few reads of this one miss the caches
    that the processor, which looks ahead some hundred instructions, would wait for them one by one."""
    cells = max(1, len(run.columns) // grad.windows.stride[1])
    following = run.column + cells
    for c in run.columns:
        x.prefetch(run.y, grad.windows.column(following, c))
    for cell in range(cells):
        for operand in (y, dy):
            operand.prefetch(run.row, following + cell)


def _mean_of_run(grad: _Grad, shares: Shares, run: _Run, at: _Vector) -> None:
    """The windows of one column are added up first, then the columns that have a place."""
    k, dy, step = grad.k, grad.pixels(0, at), grad.windows.stride[1]
    parts = k.register("part", at.lanes, (len(run.windows),))
    with _windows_row(grad, run) as (oy, _):
        for number, (d, taps) in enumerate(run.windows):
            value = dy.load(oy, run.column + d)
            if shares.one is None:
                value = value * shares.of_window(oy, False, run.column + d, taps, at.lanes)
            parts[number,] = parts[number,] + value
    values = []
    for c in run.columns:
        having = [parts[number,] for number, (d, taps) in enumerate(run.windows) if c - d * step in taps]
        total = reduce(Vec.__add__, having) if having else k.constant(0.0, at.lanes)
        values.append(total if shares.one is None else total * shares.one)
    _finish(grad, run, at, values)


def _finish(grad: _Grad, run: _Run, at: _Vector, values: Sequence[Vec]) -> None:
    places = [grad.windows.column(run.column, c) for c in run.columns]
    grad.finish(at, run.y, list(zip(places, values, strict=True)))
