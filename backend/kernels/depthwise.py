"""Depthwise convolution and its input gradient: one channel and one map per group.

Lanes run along the channels of channels-last maps, so that neither source nor weights are broadcast. A tile
is columns of a row by one vector; each vector of the source is loaded once for all taps of a row that meet
there. An iteration of the parallel nest takes some rows of some vectors of channels, so few that the source
rows which a result row reads are still in the first-level cache when the next one reads them again.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

from cnnc.backend.kernel.builder import Coordinate, KernelBuilder, Tile
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.columns import Run, joint_runs, meeting_columns, most_columns, side_by_side
from cnnc.backend.kernels.contraction import Contraction
from cnnc.backend.kernels.loops import vectors
from cnnc.backend.kernels.phases import Phase
from cnnc.backend.kernels.region import Epilogue, Point, Region, point
from cnnc.backend.kernels.rows import SourceRows, each_filter_row, each_part
from cnnc.backend.kernels.site import Site
from cnnc.backend.kernels.tiles import usable_registers
from cnnc.errors import UnsupportedError

ITERATIONS = 16
"""Iterations of the parallel nest to aim at: enough to share out evenly among a few threads."""

LEAST_ROWS = 4
"""Rows of an iteration at least: the rows at its edge are read by its neighbours as well."""

Phases = tuple[Phase, ...]
Runs = tuple[Run, ...]


def depthwise(site: Site, shape: Contraction) -> Kernel:
    """A depthwise convolution or input gradient with its epilogue.

    The source lies channels-last, the weights as `bcda`. Raises UnsupportedError for other layouts.
    """
    region = Region(site)
    source, weights = region.anchor_tensor(0).layout, region.anchor_tensor(1).layout
    if (source.tag, weights.tag) != ("acdb", "bcda"):
        raise UnsupportedError(f"a depthwise convolution reads acdb and bcda, not {source} and {weights}")
    height, phases = shape.result[0], len(shape.phases(0))
    region.expect_bands(lambda rows: rows % phases == 0 or rows == height)
    return _Depthwise(site, shape).build()


@dataclass(frozen=True)
class _Place:
    """Where a tile stands: image, band, first row and column as the phases count them, and first channel,
    with as many of its vector's lanes as are valid."""

    image: Affine
    band: Affine
    row: Affine
    column: Affine
    channel: Affine
    count: int


class _Depthwise:
    """Writes one depthwise contraction."""

    def __init__(self, site: Site, shape: Contraction) -> None:
        self.site, self.shape, self.region = site, shape, Region(site)
        self.k = KernelBuilder(self.region.body.name if len(self.region.body.nodes) > 1 else site.op.name)
        self.arguments = self.region.declare(self.k)
        self.channels, self.lanes = shape.groups, site.lanes(shape.groups)
        self.rows, self.phases = self.region.window[0], (shape.phases(0), shape.phases(1))
        self.heights = -(-self.phases[0][0].count // self.rows)

    @cached_property
    def strip(self) -> int:
        """Channels of an iteration: whole cache lines, so many that the source rows which a tile reads take
        half of the first-level cache, but one at least; or all channels."""
        read = (self.shape.kernel[0] - 1) * self.shape.dilation[0] + self.rows * self.shape.stride[0]
        vector = 4 * self.lanes * self.shape.source[1] * min(read, self.shape.source[0])
        line = max(1, LINE // self.lanes)
        fitting = max(1, self.site.target.l1_bytes // 2 // vector // line) * line
        return min(fitting, -(-self.channels // self.lanes)) * self.lanes

    @cached_property
    def part(self) -> int:
        """Rows of tiles of an iteration: whole bands."""
        wanted = -(-ITERATIONS // (self.shape.batch * -(-self.channels // self.strip)))
        rows = max(-(-self.heights // wanted), min(self.heights, LEAST_ROWS))
        return -(-rows // self.band) * self.band

    @cached_property
    def band(self) -> int:
        """Rows of tiles of a band, which an iteration has whole; without bands each is one."""
        bands = self.region.bands
        return -(-bands.part // (self.shape.result[1] * len(self.phases[0]))) if bands else 1

    def build(self) -> Kernel:
        k, strips = self.k, -(-self.channels // self.strip)
        with (
            k.loop("n", 0, self.shape.batch, parallel=True, images=self.site.each_image) as image,
            k.loop("part", 0, -(-self.heights // self.part), parallel=True) as part,
            k.loop("strip", 0, strips, parallel=True) as strip,
        ):

            def rows(number: Affine, channels: int) -> None:
                self._rows(image, part, number * self.strip, channels)

            each_part(k, strip, strips, self.channels, self.strip, rows)
        return k.build()

    def _rows(self, image: Affine, part: Affine, channel: Affine, channels: int) -> None:
        """The rows of tiles of a part of a strip."""
        k, start = self.k, part * self.part
        if not self.region.bands:
            with k.loop("row", start, (start + self.part, self.heights)) as row:
                self._row(_Place(image, row, row, affine(0), channel, channels))
            return
        each = self.part // self.band
        first = part * each
        with k.loop("band", first, (first + each, self.region.bands.parts)) as band:
            Epilogue(k, self.region, self.arguments, band).begin(image, channel, channels, self.lanes)
            start = band * self.band
            with k.loop("row", start, (start + self.band, self.heights)) as row:
                self._row(_Place(image, band, row, affine(0), channel, channels))

    def _row(self, start: _Place) -> None:
        """The tiles of all phases in one row of tiles of a strip, `start.count` being its channels."""
        for phase in self.phases[0]:

            def tiles(number: Affine, rows: int, phase: Phase = phase) -> None:
                for together in side_by_side(self.phases[1]):
                    self._tiles(replace(start, row=number * self.rows), rows, (phase, together))

            each_part(self.k, start.row, self.heights, phase.count, self.rows, tiles)

    def _tiles(self, start: _Place, rows: int, phases: tuple[Phase, Phases]) -> None:
        vertical, together = phases
        for runs in joint_runs(together, self.shape.source[1], *self._columns(together)):
            with self.k.once_or_loop("tile", runs[0].count) as tile:
                column = tile * runs[0].pixels + runs[0].first

                def vector(first: Affine, count: int, runs: Runs = runs, column: Affine = column) -> None:
                    place = replace(start, column=column, channel=start.channel + first, count=count)
                    for phase, run in zip(together, runs, strict=True):
                        self._tile(place, (vertical, phase), rows, run)

                vectors(self.k, start.count, self.lanes, vector, unroll=1)

    def _columns(self, together: Phases) -> tuple[int, int]:
        """Most columns of a tile, beside the weights of a row and a source vector, and their multiple."""
        target, multiple = self.site.target, self.region.window[1]
        fitting = (usable_registers(target) - max(phase.taps for phase in together) - 1) // self.rows
        most = most_columns(target, self.region.anchor_tensor(0).type.nbytes, fitting, together[0].stride)
        return max(multiple, most - most % multiple), multiple

    def _tile(self, place: _Place, phases: tuple[Phase, Phase], rows: int, run: Run) -> None:
        """Accumulate one tile and finish it."""
        self._prefetch(place, phases, rows, run)
        acc, numbers = self.k.register("acc", self.lanes, (rows, run.pixels)), tuple(range(rows))
        if run.reach:

            def taps(r: Affine, reached: SourceRows) -> None:
                self._filter_row(acc, place, (phases[0].filter(r), phases[1]), reached, run)

            each_filter_row(self.k, phases[0], self.shape.source[0], place.row, numbers, taps)
        points = self._points(place, phases, rows, run)
        values = dict(zip(points, (acc[i, j] for i in numbers for j in range(run.pixels)), strict=True))
        Epilogue(self.k, self.region, self.arguments, place.band).finish(values, place.count)

    def _points(self, place: _Place, phases: tuple[Phase, Phase], rows: int, run: Run) -> list[Point]:
        """The results of a tile, row by row."""
        (vertical, horizontal), image, channel = phases, place.image, place.channel
        return [
            point(image, channel, vertical.result(place.row + i), horizontal.result(place.column + j))
            for i in range(rows)
            for j in range(run.pixels)
        ]

    def _prefetch(self, place: _Place, phases: tuple[Phase, Phase], rows: int, run: Run) -> None:
        """Ask for what the next row of tiles is the first to read in the tile's columns: processors see
        rows that lie far apart as so many streams, too many to follow."""
        below = replace(place, row=place.row + rows)
        Epilogue(self.k, self.region, self.arguments).prefetch(self._points(below, phases, rows, run))
        source, tensor = self.arguments.operands[self.region.operand(0)], self.region.anchor_tensor(0)
        is_first = phases == (self.phases[0][0], self.phases[1][0])
        if tensor.type.nbytes <= self.site.target.l2_bytes or not is_first:
            return
        vertical, horizontal = phases
        first = vertical.source(place.row + rows, 0) + (vertical.taps - 1) * vertical.shift
        for i, j in itertools.product(range(rows * vertical.stride), range(run.pixels * horizontal.stride)):
            column = place.column * horizontal.stride + (horizontal.offset + j)
            source.prefetch(tensor.place((place.image, place.channel, first + i, column)))

    def _filter_row(
        self, acc: Tile, place: _Place, taps: tuple[Coordinate, Phase], rows: SourceRows, run: Run
    ) -> None:
        """Add the products of one row of the filter. Each source vector is loaded once, for all taps and
        columns that meet there."""
        source, tensor = self.arguments.operands[self.region.operand(0)], self.region.anchor_tensor(0)
        weights = self.arguments.operands[self.region.operand(1)]
        r, phase = taps
        loaded = {
            s: weights.load((0, r, phase.filter(s), place.channel), self.lanes, place.count)
            for s, reach in enumerate(run.reach)
            if reach
        }
        for row, y in rows.items():
            for offset, products in sorted(meeting_columns(run, phase).items()):
                index = tensor.place((place.image, place.channel, y, place.column * phase.stride + offset))
                value = source.load(index, self.lanes, place.count)
                for j, s in products:
                    acc[row, j] = self.k.fma(value, loaded[s], acc[row, j])
