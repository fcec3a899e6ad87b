"""Weight gradients of depthwise convolutions.

dw[c, r, s] = sum over n, y, x of dy[n, y, x, c] * source[n, y*sh + r*dh - top, x*sw + s*dw - left, c]. Lanes
run along the channels. The sums of some rows of the filter stay in registers while all images pass, or, for
maps that come from memory, while a row passes: then rows are read in the order of memory, and between them
the sums are in scratch memory. dy is loaded a few columns at a time, and each source vector once for all
products it is part of. What lies outside the source is left out when the kernel is written, as in columns.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Tile
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.arrays import as_arrays
from cnnc.backend.kernels.columns import Run, column_runs, meeting_columns, most_columns
from cnnc.backend.kernels.contraction import Contraction
from cnnc.backend.kernels.loops import vectors
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.rows import each_part, where_inside
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.tiles import usable_registers
from cnnc.errors import UnsupportedError
from cnnc.ir.layout import CHANNELS_LAST

ITERATIONS = 4
"""Iterations of the parallel nest to aim at; more of them read dy more often."""


def depthwise_weight_grad(site: Site, shape: Contraction, strips: int) -> Kernel:
    """The kernel for a convolution of this geometry, whose images are `strips` groups with a gradient each.

    dy and source lie channels-last, dw as `bcda`. Raises UnsupportedError for other layouts.
    """
    region = Region(site)
    read, result = (region.anchor_tensor(0), region.anchor_tensor(1)), site.results[0]
    wanted = "bcda" if result.type.rank == 4 else "acdeb"
    if any(t.layout != CHANNELS_LAST for t in read) or result.layout.tag != wanted:
        layouts = ", ".join(t.layout.tag for t in (*read, result))
        raise UnsupportedError(f"a depthwise weight gradient has layouts acdb, acdb, {wanted}, not {layouts}")
    maps = {region.operand(i): t.physical for i, t in enumerate(read)}
    weights = (strips, *shape.kernel, shape.groups)
    return _DepthwiseGrad(as_arrays(site, weights, maps), shape, strips).build()


@dataclass(frozen=True)
class _Panel:
    """What an iteration reads: its strip of images, its first channel, and how many channels it has."""

    strip: Affine
    channel: Affine
    channels: int


@dataclass(frozen=True)
class _Part:
    """What an iteration computes: the number of its part of the filter, the rows in it, and the panel."""

    number: Affine
    rows: range
    panel: _Panel


@dataclass(frozen=True)
class _Row:
    """A row of dy: its image, its number, and the rows that reach the source as it does."""

    image: Affine
    y: Affine
    lines: Run


@dataclass(frozen=True)
class _Vector:
    """Of the channels: where it begins, in the panel and of all, and how many of its lanes are valid."""

    start: Affine
    channel: Affine
    count: int


class _DepthwiseGrad:
    """Writes one depthwise weight gradient."""

    def __init__(self, site: Site, shape: Contraction, strips: int) -> None:
        self.site, self.shape, self.strips, self.region = site, shape, strips, Region(site)
        self.k = KernelBuilder(self.region.body.name if self.region.epilogue else site.op.name)
        self.arguments = declare(self.k, site)
        self.dy, self.source = (self.arguments.operands[self.region.operand(i)] for i in (0, 1))
        self.lanes = site.lanes(shape.groups)
        self.vectors = -(-shape.groups // self.lanes)
        (self.row_phase,), (self.column_phase,) = shape.phases(0), shape.phases(1)

    @cached_property
    def rows(self) -> int:
        """Rows of the filter in an iteration: as many as registers hold, but so few that enough iterations
        are left to share out."""
        kh, kw = self.shape.kernel
        held = max(1, (usable_registers(self.site.target) - 3) // kw)
        most = self.vectors * self.strips
        return max((r for r in range(1, min(kh, held) + 1) if most * -(-kh // r) >= ITERATIONS), default=1)

    @cached_property
    def sums(self) -> int:
        """Sums per weight, of columns apart, that it takes to hide the latency of an FMA."""
        target, chains = self.site.target, self.rows * self.shape.kernel[1]
        return min(-(-target.fma_units * target.fma_latency // chains), self.column_phase.count)

    @cached_property
    def panel(self) -> int:
        """Channels of an iteration: all of them, or so few that enough iterations are left to share out."""
        iterations = self.strips * -(-self.shape.kernel[0] // self.rows)
        panels = min(self.vectors, -(-ITERATIONS // iterations))
        return -(-self.vectors // panels) * self.lanes

    @cached_property
    def is_streamed(self) -> bool:
        """Whether maps come from memory: then a row is read for all vectors of the panel, in the order of
        memory, before the next. Else the sums of a vector stay in registers for many rows."""
        return self.source.buffer.nbytes > self.site.target.l2_bytes

    def build(self) -> Kernel:
        k, shape = self.k, self.shape
        parts, panels = -(-shape.kernel[0] // self.rows), -(-shape.groups // self.panel)
        with (
            k.loop("strip", 0, self.strips, parallel=True) as strip,
            k.loop("panel", 0, panels, parallel=True) as panel,
            k.loop("part", 0, parts, parallel=True) as part,
        ):

            def channels(number: Affine, count: int) -> None:
                self._parts(part, parts, _Panel(strip, number * self.panel, count))

            each_part(k, panel, panels, shape.groups, self.panel, channels)
        return k.build()

    def _parts(self, number: Affine, parts: int, panel: _Panel) -> None:
        """The code of each part, of which one runs: the rows of dy that they meet differ."""
        if parts == 1:
            self._part(_Part(number, range(self.shape.kernel[0]), panel))
            return
        for part in range(parts):
            rows = range(part * self.rows, min((part + 1) * self.rows, self.shape.kernel[0]))
            with where_inside(self.k, number - part, 1) as inside:
                self._part(_Part(inside + part, rows, panel))

    def _part(self, part: _Part) -> None:
        """Sum the weights of some rows of the filter over all pixels, and store them."""
        if self.is_streamed:
            self._streamed(part)
            return

        def whole(vector: _Vector) -> None:
            acc = self._registers(part)
            for row in self._each_row(part):
                self._add_row(acc, part, row, vector)
            self._finish(acc, part, vector)

        self._each_vector(part, whole)

    def _streamed(self, part: _Part) -> None:
        """The same row by row, the sums of each vector fetched from scratch memory and put back."""

        def clear(vector: _Vector) -> None:
            self._keep(self._registers(part), part, vector)

        self._each_vector(part, clear)
        for row in self._each_row(part):

            def add(vector: _Vector, row: _Row = row) -> None:
                acc = self._kept(part, vector)
                self._add_row(acc, part, row, vector)
                self._keep(acc, part, vector)

            self._each_vector(part, add)
        self._each_vector(part, lambda vector: self._finish(self._kept(part, vector), part, vector))

    def _each_vector(self, part: _Part, body: Callable[[_Vector], None]) -> None:
        def vector(start: Affine, count: int) -> None:
            body(_Vector(start, part.panel.channel + start, count))

        vectors(self.k, part.panel.channels, self.lanes, vector, unroll=1)

    def _each_row(self, part: _Part) -> Iterator[_Row]:
        """Loops over the rows of dy that reach rows of the source by the part's rows of the filter."""
        images = self.shape.batch // self.strips
        with self.k.once_or_loop("n", images) as image:
            for lines in column_runs(self.row_phase, self.shape.source[0], 1):
                if any(lines.reach[r] for r in part.rows):
                    with self.k.once_or_loop("y", lines.count) as y:
                        yield _Row(part.panel.strip * images + image, y + lines.first, lines)

    def _registers(self, part: _Part) -> Tile:
        """Sums that are zero."""
        return self.k.register("acc", self.lanes, (self.sums, len(part.rows), self.shape.kernel[1]))

    def _chains(self, part: _Part) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """The places of the sums in scratch memory and in registers."""
        rows, columns = range(len(part.rows)), range(self.shape.kernel[1])
        return enumerate(itertools.product(range(self.sums), rows, columns))

    def _kept(self, part: _Part, vector: _Vector) -> Tile:
        """The sums of a vector, from scratch memory."""
        acc = self._registers(part)
        for number, chain in self._chains(part):
            acc[chain] = self.scratch.load((number, vector.start), self.lanes)
        return acc

    def _keep(self, acc: Tile, part: _Part, vector: _Vector) -> None:
        for number, chain in self._chains(part):
            self.scratch.store((number, vector.start), acc[chain])

    @cached_property
    def scratch(self) -> BufferHandle:
        """The sums of a panel."""
        return self.k.scratch("sums", (self.sums * self.rows * self.shape.kernel[1], self.panel))

    def _add_row(self, acc: Tile, part: _Part, row: _Row, vector: _Vector) -> None:
        """Add the products of a row, a few columns at a time."""
        target = self.site.target
        fitting = max(1, usable_registers(target) - self.sums * len(part.rows) * self.shape.kernel[1] - 1)
        most = most_columns(target, self.source.buffer.nbytes, fitting)
        for run in column_runs(self.column_phase, self.shape.source[1], most):
            with self.k.once_or_loop("x", run.count) as tile:
                column = tile * run.pixels + run.first
                if self.is_streamed:
                    self._prefetch(row, vector, run, column)
                self._add_columns(acc, part, row, vector, (run, column))

    def _add_columns(
        self, acc: Tile, part: _Part, row: _Row, vector: _Vector, columns: tuple[Run, Affine]
    ) -> None:
        """Add the products of a tile of a run, from the column given on."""
        phase, (run, column), (channel, count) = self.column_phase, columns, (vector.channel, vector.count)
        gradients = [
            self.dy.load((row.image, row.y, column + j, channel), self.lanes, count)
            for j in range(run.pixels)
        ]
        for i, r in ((i, r) for i, r in enumerate(part.rows) if row.lines.reach[r]):
            y = self.row_phase.source(row.y, r)
            for offset, products in sorted(meeting_columns(run, phase).items()):
                index = (row.image, y, column * phase.stride + offset, channel)
                value = self.source.load(index, self.lanes, count)
                for j, s in products:
                    product = (j % self.sums, i, s)
                    acc[product] = self.k.fma(value, gradients[j], acc[product])

    def _prefetch(self, row: _Row, vector: _Vector, run: Run, column: Affine) -> None:
        """Ask for what the next row is the first to read in these columns: processors see rows that lie far
        apart as so many streams, too many to follow."""
        rows, columns = self.row_phase, self.column_phase
        for j in range(run.pixels):
            self.dy.prefetch((row.image, row.y + 1, column + j, vector.channel))
        first = rows.source(row.y, rows.taps - 1) + 1
        for i, j in itertools.product(range(rows.stride), range(run.pixels * columns.stride)):
            x = column * columns.stride + (columns.offset + j)
            self.source.prefetch((row.image, first + i, x, vector.channel))

    def _finish(self, acc: Tile, part: _Part, vector: _Vector) -> None:
        """Store a vector of the weights of every place in the part."""
        epilogue = Epilogue(self.k, self.region, self.arguments)
        for i, s in itertools.product(range(len(part.rows)), range(self.shape.kernel[1])):
            total = acc[0, i, s]
            for turn in range(1, self.sums):
                total = total + acc[turn, i, s]
            place = point(part.panel.strip, part.number * self.rows + i, s, vector.channel)
            epilogue.finish({place: total}, vector.count)
