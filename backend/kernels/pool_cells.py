"""How gradients of pools with overlapping windows visit a map: max_pool_grad.py and mean_pool_grad.py.

The map is cut into cells of stride rows by stride columns: a cell's places belong to the same few windows,
of which the last begins with the cell. So every place is written once, by the iteration that owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernels.loops import vectors
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.site import Arguments, Site, Tensor
from cnnc.backend.kernels.windows import Pixels, Windows, each_step
from cnnc.ops.pool import MaxPool2dGrad, MeanPool2dGrad


@dataclass(frozen=True)
class Channels:
    """Channels of an image."""

    image: Affine
    channel: Affine
    lanes: int
    count: int


@dataclass(frozen=True)
class PoolGrad:
    """The kernel under construction, and the windows of its op."""

    k: KernelBuilder
    region: Region
    arguments: Arguments
    windows: Windows

    @classmethod
    def of(cls, site: Site) -> PoolGrad:
        region = Region(site)
        op = region.anchor
        assert isinstance(op, MaxPool2dGrad | MeanPool2dGrad)
        k = KernelBuilder(op.name)
        windows = Windows.of(op, region.result.type, region.anchor_tensor(0).type)
        return cls(k, region, region.declare(k), windows)

    @property
    def images(self) -> int:
        return self.region.result.type.shape[0]

    def pixels(self, operand: int, at: Channels) -> Pixels:
        """Channels of an operand of the anchor."""
        handle = self.arguments.operands[self.region.operand(operand)]
        return Pixels(handle, self.region.anchor_tensor(operand), at.image, at.channel, at.lanes, at.count)

    def begin(self, image: Affine, band: Affine) -> None:
        """Set the sums of a band to zero."""
        epilogue = Epilogue(self.k, self.region, self.arguments, band)
        self.vectors(image, lambda at: epilogue.begin(image, at.channel, at.count, at.lanes))

    def finish(
        self, at: Channels, y: Affine, values: Sequence[tuple[Affine, Vec]], band: Affine | None = None
    ) -> None:
        """Finish the vectors of some columns of row `y`."""
        points = {point(at.image, at.channel, y, x): value for x, value in values}
        Epilogue(self.k, self.region, self.arguments, band).finish(points, at.count)

    def ahead(self, at: Channels, places: Sequence[tuple[Affine, Affine]]) -> None:
        """Ask for what `finish` will read and write at some places (y, x), of maps that no cache holds."""
        points = [point(at.image, at.channel, y, x) for y, x in places]
        for handle, tensor in zip(self.arguments.results, self.region.site.results, strict=True):
            for place in points if self.is_large(tensor) else ():
                handle.prefetch(tensor.place(place))
        Epilogue(self.k, self.region, self.arguments).prefetch(points)

    def is_large(self, tensor: Tensor) -> bool:
        """Whether the second-level cache cannot hold a map."""
        return tensor.type.nbytes > self.region.site.target.l2_bytes

    @property
    def channels(self) -> int:
        return self.region.result.type.shape[1]

    @property
    def cells(self) -> range:
        """The rows of cells that have places on the map, counted with the padding."""
        step, top = self.windows.stride[0], self.windows.pad[0]
        return range(top // step, -(-(self.windows.size[0] + top) // step))

    @property
    def marked(self) -> int:
        """With what the loop over images is marked."""
        return self.region.site.each_image

    def vectors(self, image: Affine, body: Callable[[Channels], None]) -> None:
        """`body` for all channels of an image."""
        channels = self.channels
        lanes = self.region.site.lanes(channels)
        vectors(
            self.k, channels, lanes, lambda start, count: body(Channels(image, start, lanes, count)), unroll=1
        )


@dataclass(frozen=True)
class Run:
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


def each_place(grad: PoolGrad, image: Affine, row: Affine, body: Callable[[Run, Channels], None]) -> None:
    """`body` for every run of places in a row of cells, line by line, and every vector of channels."""
    step, (height, _), top = grad.windows.stride[0], grad.windows.size, grad.windows.pad[0]

    def line(r: Affine) -> None:
        start = Run(row * step + r - top, row, r, affine(0), (), ())
        each_run(grad, start, lambda run: grad.vectors(image, lambda at: body(run, at)))

    if step == 1:
        line(affine(0))
        return
    with grad.k.loop("r", (0, top - row * step), (step, height + top - row * step)) as r:
        line(r)


def each_run(grad: PoolGrad, line: Run, body: Callable[[Run], None]) -> None:
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
def windows_rows(grad: PoolGrad, run: Run) -> Iterator[tuple[Affine, Affine]]:
    """A loop over the rows of windows that have the run's row: each with the row's number in the window."""
    (high, _), (step, _) = grad.windows.kernel, grad.windows.stride
    with grad.k.loop("oy", (0, run.row - (high - 1) // step), (grad.windows.result[0], run.row + 1)) as oy:
        tap = run.r + (run.row - oy) * step
        if high % step == 0:
            yield oy, tap
            return
        with grad.k.loop("has", 0, (1, high - tap)):
            yield oy, tap


def finish_run(grad: PoolGrad, run: Run, at: Channels, values: Sequence[Vec]) -> None:
    places = [grad.windows.column(run.column, c) for c in run.columns]
    grad.finish(at, run.y, list(zip(places, values, strict=True)))
