"""Weight gradients of depthwise convolutions.

dw[c, r, s] = sum over n, y, x of dy[n, y, x, c] * source[n, y*sh + r*dh - top, x*sw + s*dw - left, c]. Lanes
run along the channels. The sums of some rows of the filter stay in registers while all images pass; dy is
loaded a few columns at a time, and each source vector once for all products it is part of. What lies outside
the source is left out when the kernel is written, as in columns.py.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

from cnnc.backend.kernel.builder import KernelBuilder, Tile
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.arrays import as_arrays
from cnnc.backend.kernels.columns import Run, column_runs, meeting_columns
from cnnc.backend.kernels.contraction import Contraction
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
class _Vector:
    """The strip of images and the first channel of an iteration, and how many of its lanes are valid."""

    strip: Affine
    channel: Affine
    count: int


@dataclass(frozen=True)
class _Part:
    """What an iteration computes: the number of its part of the filter, and the rows in it."""

    number: Affine
    rows: range
    vector: _Vector


class _DepthwiseGrad:
    """Writes one depthwise weight gradient."""

    def __init__(self, site: Site, shape: Contraction, strips: int) -> None:
        self.site, self.shape, self.strips, self.region = site, shape, strips, Region(site)
        self.k = KernelBuilder(self.region.body.name if self.region.epilogue else site.op.name)
        self.arguments = declare(self.k, site)
        self.dy, self.source = (self.arguments.operands[self.region.operand(i)] for i in (0, 1))
        self.lanes = site.lanes(shape.groups)
        (self.row_phase,), (self.column_phase,) = shape.phases(0), shape.phases(1)

    @cached_property
    def rows(self) -> int:
        """Rows of the filter in an iteration: as many as registers hold, but so few that enough iterations
        are left to share out."""
        kh, kw = self.shape.kernel
        held = max(1, (usable_registers(self.site.target) - 3) // kw)
        vectors = -(-self.shape.groups // self.lanes) * self.strips
        return max((r for r in range(1, min(kh, held) + 1) if vectors * -(-kh // r) >= ITERATIONS), default=1)

    @cached_property
    def sums(self) -> int:
        """Sums per weight, of columns apart, that it takes to hide the latency of an FMA."""
        target, chains = self.site.target, self.rows * self.shape.kernel[1]
        return min(-(-target.fma_units * target.fma_latency // chains), self.column_phase.count)

    def build(self) -> Kernel:
        k, shape = self.k, self.shape
        parts, vectors = -(-shape.kernel[0] // self.rows), -(-shape.groups // self.lanes)
        with (
            k.loop("strip", 0, self.strips, parallel=True) as strip,
            k.loop("vector", 0, vectors, parallel=True) as vector,
            k.loop("part", 0, parts, parallel=True) as part,
        ):

            def channels(number: Affine, count: int) -> None:
                self._parts(part, parts, _Vector(strip, number * self.lanes, count))

            each_part(k, vector, vectors, shape.groups, self.lanes, channels)
        return k.build()

    def _parts(self, number: Affine, parts: int, vector: _Vector) -> None:
        """The code of each part, of which one runs: the rows of dy that they meet differ."""
        if parts == 1:
            self._part(_Part(number, range(self.shape.kernel[0]), vector))
            return
        for part in range(parts):
            rows = range(part * self.rows, min((part + 1) * self.rows, self.shape.kernel[0]))
            with where_inside(self.k, number - part, 1) as inside:
                self._part(_Part(inside + part, rows, vector))

    def _part(self, part: _Part) -> None:
        """Sum the weights of some rows of the filter over all pixels, and store them."""
        k, kw = self.k, self.shape.kernel[1]
        acc = k.register("acc", self.lanes, (self.sums, len(part.rows), kw))
        free = usable_registers(self.site.target) - self.sums * len(part.rows) * kw - 1
        runs = column_runs(self.column_phase, self.shape.source[1], max(1, free))
        images = self.shape.batch // self.strips
        with k.once_or_loop("n", images) as image:
            for lines in column_runs(self.row_phase, self.shape.source[0], 1):
                if any(lines.reach[r] for r in part.rows):
                    with k.once_or_loop("y", lines.count) as line:
                        row = part.vector.strip * images + image, line + lines.first
                        for run in runs:
                            self._row(acc, part, row, lines, run)
        epilogue, vector = Epilogue(k, self.region, self.arguments), part.vector
        for i, s in itertools.product(range(len(part.rows)), range(kw)):
            total = acc[0, i, s]
            for turn in range(1, self.sums):
                total = total + acc[turn, i, s]
            place = point(vector.strip, part.number * self.rows + i, s, vector.channel)
            epilogue.finish({place: total}, vector.count)

    def _row(self, acc: Tile, part: _Part, line: tuple[Affine, Affine], lines: Run, run: Run) -> None:
        """Add the products of the tiles of a row of dy."""
        k, (image, y), phase, vector = self.k, line, self.column_phase, part.vector
        with k.once_or_loop("x", run.count) as tile:
            column = tile * run.pixels + run.first
            gradients = [
                self.dy.load((image, y, column + j, vector.channel), self.lanes, vector.count)
                for j in range(run.pixels)
            ]
            meeting = meeting_columns(run, phase)
            for i, r in ((i, r) for i, r in enumerate(part.rows) if lines.reach[r]):
                for offset, products in sorted(meeting.items()):
                    index = (
                        image,
                        self.row_phase.source(y, r),
                        column * phase.stride + offset,
                        vector.channel,
                    )
                    value = self.source.load(index, self.lanes, vector.count)
                    for j, s in products:
                        product = (j % self.sums, i, s)
                        acc[product] = k.fma(value, gradients[j], acc[product])
