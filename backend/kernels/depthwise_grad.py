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
from cnnc.backend.kernels.columns import Run, column_runs, meeting_columns
from cnnc.backend.kernels.contraction import Contraction
from cnnc.backend.kernels.rows import each_part, where_inside
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.tiles import usable_registers
from cnnc.errors import UnsupportedError

ITERATIONS = 4
"""Iterations of the parallel nest to aim at; more of them read dy more often."""


def depthwise_weight_grad(site: Site, shape: Contraction) -> Kernel:
    """The kernel for a convolution of this geometry; dy and source lie channels-last, dw as `bcda`.

    Raises UnsupportedError for other layouts.
    """
    layouts = tuple(t.layout.tag for t in (*site.operands, *site.results))
    if layouts != ("acdb", "acdb", "bcda"):
        raise UnsupportedError(f"a depthwise weight gradient has layouts acdb, acdb, bcda, not {layouts}")
    return _DepthwiseGrad(site, shape).build()


@dataclass(frozen=True)
class _Part:
    """What an iteration computes: the number of its part of the filter, the rows in it, the first channel of
    its vector, and how many of its lanes are valid."""

    number: Affine
    rows: range
    channel: Affine
    count: int


class _DepthwiseGrad:
    """Writes one depthwise weight gradient."""

    def __init__(self, site: Site, shape: Contraction) -> None:
        self.site, self.shape = site, shape
        self.k = KernelBuilder(site.op.name)
        arguments = declare(self.k, site)
        self.dy, self.source = arguments.operands
        self.dw = arguments.results[0]
        self.lanes = site.lanes(shape.groups)
        (self.row_phase,), (self.column_phase,) = shape.phases(0), shape.phases(1)

    @cached_property
    def rows(self) -> int:
        """Rows of the filter in an iteration: as many as registers hold, but so few that enough iterations
        are left to share out."""
        kh, kw = self.shape.kernel
        held = max(1, (usable_registers(self.site.target) - 3) // kw)
        vectors = -(-self.shape.groups // self.lanes)
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
            k.loop("vector", 0, vectors, parallel=True) as vector,
            k.loop("part", 0, parts, parallel=True) as part,
        ):

            def channels(number: Affine, count: int) -> None:
                self._parts(part, parts, number * self.lanes, count)

            each_part(k, vector, vectors, shape.groups, self.lanes, channels)
        return k.build()

    def _parts(self, part: Affine, parts: int, channel: Affine, count: int) -> None:
        """The code of each part, of which one runs: the rows of dy that they meet differ."""
        if parts == 1:
            self._part(_Part(part, range(self.shape.kernel[0]), channel, count))
            return
        for number in range(parts):
            rows = range(number * self.rows, min((number + 1) * self.rows, self.shape.kernel[0]))
            with where_inside(self.k, part - number, 1) as inside:
                self._part(_Part(inside + number, rows, channel, count))

    def _part(self, part: _Part) -> None:
        """Sum the weights of some rows of the filter over all pixels, and store them."""
        k, kw = self.k, self.shape.kernel[1]
        acc = k.register("acc", self.lanes, (self.sums, len(part.rows), kw))
        free = usable_registers(self.site.target) - self.sums * len(part.rows) * kw - 1
        runs = column_runs(self.column_phase, self.shape.source[1], max(1, free))
        with k.once_or_loop("n", self.shape.batch) as image:
            for lines in column_runs(self.row_phase, self.shape.source[0], 1):
                if any(lines.reach[r] for r in part.rows):
                    with k.once_or_loop("y", lines.count) as line:
                        for run in runs:
                            self._row(acc, part, (image, line + lines.first), lines, run)
        place = self.site.results[0].place
        for i, s in itertools.product(range(len(part.rows)), range(kw)):
            total = acc[0, i, s]
            for turn in range(1, self.sums):
                total = total + acc[turn, i, s]
            self.dw.store(place((part.channel, 0, part.number * self.rows + i, s)), total, part.count)

    def _row(self, acc: Tile, part: _Part, line: tuple[Affine, Affine], lines: Run, run: Run) -> None:
        """Add the products of the tiles of a row of dy."""
        k, (image, y), phase = self.k, line, self.column_phase
        dy, source = self.site.operands
        with k.once_or_loop("x", run.count) as tile:
            column = tile * run.pixels + run.first
            gradients = [
                self.dy.load(dy.place((image, part.channel, y, column + j)), self.lanes, part.count)
                for j in range(run.pixels)
            ]
            meeting = meeting_columns(run, phase)
            for i, r in ((i, r) for i, r in enumerate(part.rows) if lines.reach[r]):
                for offset, products in sorted(meeting.items()):
                    x = column * phase.stride + offset
                    index = source.place((image, part.channel, self.row_phase.source(y, r), x))
                    value = self.source.load(index, self.lanes, part.count)
                    for j, s in products:
                        place = (j % self.sums, i, s)
                        acc[place] = k.fma(value, gradients[j], acc[place])
