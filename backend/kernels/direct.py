"""Direct contraction: convolution, input gradient and dense product as register-tiled FMAs.

A tile of pixels x vectors of maps is accumulated over all taps and channels, then handed to the
epilogue while it is still in registers. Source elements are broadcast, so the source may have any
layout without blocks; maps run along the lanes, so results are channels-last. A strided input gradient is
computed phase by phase (phases.py), each of them a dense contraction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from cnnc.backend.kernel.builder import Coordinate, KernelBuilder, Tile, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.columns import Run, joint_runs, side_by_side
from cnnc.backend.kernels.contraction import Contraction, forward, input_grad, tile_field
from cnnc.backend.kernels.depthwise import depthwise
from cnnc.backend.kernels.fetch import Fetcher
from cnnc.backend.kernels.phases import Phase
from cnnc.backend.kernels.pointwise import as_rows
from cnnc.backend.kernels.prologue import Loader, MadeRows
from cnnc.backend.kernels.read_ahead import STRAIGHT_CHANNELS, ReadAhead
from cnnc.backend.kernels.region import Epilogue, Point, Region, point
from cnnc.backend.kernels.rows import SourceRows, each_filter_row, each_part
from cnnc.backend.kernels.site import Arguments, Site, channel_tiles
from cnnc.backend.kernels.tiles import Field, pixels_for, shape_for, usable_registers
from cnnc.backend.kernels.weights import Weights
from cnnc.ops.conv import Conv2d, Conv2dInputGrad

_Tap = tuple[Affine, tuple[int, ...]]
"""A column of the filter, and the columns of a tile whose source it reaches."""


def conv2d(site: Site) -> Kernel:
    """Any stride, padding, dilation and group count."""
    region = Region(site)
    assert isinstance(region.anchor, Conv2d)
    x, w = region.anchor_tensor(0), region.anchor_tensor(1)
    return convolution(site, forward(region.anchor, x.type, w.type, region.result.type))


def conv2d_input_grad(site: Site) -> Kernel:
    """Any stride, padding, dilation and group count."""
    region = Region(site)
    assert isinstance(region.anchor, Conv2dInputGrad)
    dy, w = region.anchor_tensor(0), region.anchor_tensor(1)
    return convolution(site, input_grad(region.anchor, dy.type, w.type, region.result.type))


def convolution(site: Site, shape: Contraction) -> Kernel:
    """Depthwise ones have a kernel of their own. Raises UnsupportedError for a prologue of others than
    contractions of one tap."""
    Region(site).expect_prologue(0 if shape.is_pointwise and shape.groups == 1 else None)
    return depthwise(site, shape) if shape.is_depthwise else direct(site, shape)


def direct(site: Site, shape: Contraction) -> Kernel:
    """The kernel of one contraction with its epilogue. Raises UnsupportedError for sums beside others than
    contractions of one tap, in bands that do not divide the rows."""
    region = Region(site)
    region.expect_bands(lambda rows: shape.is_pointwise and shape.result[0] % rows == 0)
    if shape.is_pointwise and region.window == (1, 1):
        site, shape = as_rows(site, shape)
    return _Direct(site, shape).build()


@dataclass(frozen=True)
class _Block:
    """A block of maps: its number, and (vector, count) of what it holds."""

    number: Affine
    vectors: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Place:
    """Where a tile stands: image, group, band, and as the phases count them, first row and first column."""

    image: Affine
    group: Affine
    band: Affine
    row: Affine
    column: Affine


@dataclass(frozen=True)
class _Tile:
    """A tile of pixels while it is accumulated: its registers, where it stands, its rows and columns. A
    register holds vectors of `joined` rows, one or two."""

    acc: Tile
    place: _Place
    block: _Block
    phases: tuple[Phase, Phase]
    rows: int
    run: Run

    joined: int


class _Direct:
    """Writes one direct contraction."""

    def __init__(self, site: Site, shape: Contraction) -> None:
        self.site, self.shape, self.region = site, shape, Region(site)
        self.k = KernelBuilder(self.region.body.name if len(self.region.body.nodes) > 1 else site.op.name)
        self.arguments: Arguments = self.region.declare(self.k)
        self.source = self.arguments.operands[self.region.operand(0)]
        self.source_tensor = self.region.anchor_tensor(0)
        layout = self.region.anchor_tensor(1).layout
        handle = self.arguments.operands[self.region.operand(1)]
        self.lanes, self.block = self._blocking(layout.block)
        self.weights = Weights(handle, layout, shape, self.lanes)
        vectors = len(channel_tiles(min(self.block, shape.maps), self.lanes))
        self.bands = self.region.bands.parts if self.region.bands else 0
        field = Field.row(shape.result[1]) if self.bands > 1 else tile_field(shape, self.region.window)
        self.tile_rows = shape_for(site.target, field, vectors).rows
        is_narrow = 1 < self.lanes <= site.target.lanes // 2 and vectors == 1
        self.joined = 2 if is_narrow and self.tile_rows % 2 == 0 else 1
        self.phases = shape.phases(0), shape.phases(1)
        self.parts = -(-self.phases[0][0].count // self.tile_rows)
        self.ahead = ReadAhead(self.region, shape, self.tile_rows, self.parts, self.block)
        self.made = self._made_rows() if self.region.has_prologue else None

    def _blocking(self, packed: int) -> tuple[int, int]:
        """Lanes and maps of a block: those of the packing, or without one the target's own."""
        if packed > 1:
            return min(self.site.target.lanes, packed), packed
        if not self.shape.flipped:
            return 1, 1
        lanes = self.site.lanes(self.shape.maps)
        return lanes, lanes * min(4, -(-self.shape.maps // lanes))

    def _made_rows(self) -> MadeRows:
        loader = Loader.of(self.k, self.region, self.arguments, 0)
        lanes = self.site.lanes(self.shape.channels)
        return MadeRows.declare(loader, self.source_tensor, self.shape, self.tile_rows, lanes)

    def build(self) -> Kernel:
        blocks = -(-self.shape.maps // self.block)
        with ExitStack() as nest:

            def parallel(name: str, extent: int, marked: int = 0) -> Affine:
                return nest.enter_context(self.k.loop(name, 0, extent, parallel=True, images=marked))

            is_inner = bool(self.ahead.fetched or self.made)
            outer = parallel("block", blocks) if self._weights_outer() and not is_inner else None
            image, band, group = (
                parallel("n", self.shape.batch, 0 if self._rows_are_images() else self.site.each_image),
                parallel("row", self.bands or self.parts, self._row_images()),
                parallel("group", self.shape.groups) if self.shape.groups > 1 else affine(0),
            )
            if is_inner:
                self._epilogue(band).begin(image, affine(0), self.shape.maps, self.lanes)
                part = nest.enter_context(self._parts(band))
                self._fetch(image, part)
                if self.made:
                    self.made.make(image, part * self.tile_rows)
                number = nest.enter_context(self.k.once_or_loop("block", blocks))
            else:
                number = outer if outer is not None else parallel("block", blocks)
                if self.bands:
                    begin = partial(self._begin, image, band)
                    each_part(self.k, number, blocks, self.shape.maps, self.block, begin)
                part = nest.enter_context(self._parts(band))

            def block(number: Affine, maps: int) -> None:
                vectors = tuple(enumerate(c for _, c in channel_tiles(maps, self.lanes)))
                start = _Place(image, group, band, affine(0), affine(0))
                self._phases(start, part, _Block(number, vectors))

            each_part(self.k, number, blocks, self.shape.maps, self.block, block)
        return self.k.build()

    @contextmanager
    def _parts(self, band: Affine) -> Iterator[Affine]:
        """The parts of a band: without bands, each is one."""
        if not self.bands:
            yield band
            return
        each = self.parts // self.bands
        with self.k.once_or_loop("part", each) as part:
            yield band * each + part

    def _begin(self, image: Affine, band: Affine, number: Affine, maps: int) -> None:
        """Set the sums of a band to zero, for a block of maps."""
        self._epilogue(band).begin(image, number * self.block, maps, self.lanes)

    def _epilogue(self, band: Affine) -> Epilogue:
        return Epilogue(self.k, self.region, self.arguments, band)

    def _fetch(self, image: Affine, part: Affine) -> None:
        """Fetch the operands of the epilogue for the rows of a part."""
        if not self.ahead.fetched:
            return
        rows, (height, width) = self.tile_rows, self.shape.result
        maps = [self.arguments.operands[number] for number in self.ahead.fetched]
        extent = part * rows, (part * rows + rows, height)
        Fetcher.of(self.k).fetch(maps, (image, image + 1), extent, (0, width), (0, self.shape.maps))

    def _rows_are_images(self) -> bool:
        """Whether this is a dense product of images that may share tiles."""
        return self.shape.batch < self.site.images

    def _row_images(self) -> int:
        """Images of an iteration, where its rows are images."""
        return self.tile_rows * self.shape.result[1] if self._rows_are_images() else 0

    def _weights_outer(self) -> bool:
        """Whether to keep a block of weights while all pixels pass: if weights outweigh the source."""
        weights = self.shape.maps * self.shape.channels * self.shape.kernel[0] * self.shape.kernel[1]
        source = self.shape.channels * self.shape.source[0] * self.shape.source[1]
        return self.shape.groups == 1 and weights > self.shape.batch * source

    def _phases(self, start: _Place, part: Affine, block: _Block) -> None:
        """The rows of all phases in one part of the result, and in each the tiles of all phases."""
        for row_phase in self.phases[0]:

            def rows(number: Affine, count: int, row_phase: Phase = row_phase) -> None:
                for together in side_by_side(self.phases[1]):
                    for runs in self._runs(together, count, len(block.vectors)):
                        with self.k.once_or_loop("tile", runs[0].count) as tile:
                            column = tile * runs[0].pixels + runs[0].first
                            place = replace(start, row=number * self.tile_rows, column=column)
                            for column_phase, run in zip(together, runs, strict=True):
                                self._tile(place, block, (row_phase, column_phase), count, run)

            each_part(self.k, part, self.parts, row_phase.count, self.tile_rows, rows)

    def _runs(self, phases: Sequence[Phase], rows: int, vectors: int) -> tuple[tuple[Run, ...], ...]:
        """The tiles of `rows` rows of phases: for few maps or rows they are wider than elsewhere."""
        multiple = self.region.window[1]
        most = pixels_for(self.site.target, phases[0].count, vectors, -(-rows // self.joined), multiple)
        return joint_runs(phases, self.shape.source[1], most, multiple)

    def _tile(self, place: _Place, block: _Block, phases: tuple[Phase, Phase], rows: int, run: Run) -> None:
        """Accumulate one tile and finish it."""
        joined = self.joined if rows % self.joined == 0 else 1
        shape = (rows // joined, run.pixels, len(block.vectors))
        acc = self.k.register("acc", self.lanes * joined, shape)
        tile, numbers = _Tile(acc, place, block, phases, rows, run, joined), tuple(range(rows))
        epilogue = self._epilogue(place.band)
        if self.ahead.is_asked_at_once:
            for vector in self._line_starts(block):
                epilogue.prefetch(self._points(tile, vector))
        if run.reach:
            each_filter_row(
                self.k,
                phases[0],
                self.shape.source[0],
                place.row,
                numbers,
                lambda r, reached: self._taps(tile, phases[0].filter(r), reached),
            )
        for number, (vector, count) in enumerate(block.vectors):
            points, sums = self._points(tile, vector), {}
            for i, j in product(range(rows // joined), range(run.pixels)):
                together = (points[(i * joined + row) * run.pixels + j] for row in range(joined))
                sums[tuple(together)] = acc[i, j, number]
            epilogue.finish_joined(sums, count)

    def _line_starts(self, block: _Block) -> list[int]:
        """The vectors of a block with which a line begins."""
        return [vector for vector, _ in block.vectors if vector * self.lanes % LINE == 0]

    def _points(self, tile: _Tile, vector: int) -> list[Point]:
        """A vector of every pixel of a tile, row by row."""
        pixels = product(range(tile.rows), range(tile.run.pixels))
        return [self._point(tile, vector, i, affine(j)) for i, j in pixels]

    def _point(self, tile: _Tile, vector: int, row: int, column: Affine) -> Point:
        place, (rows, columns) = tile.place, tile.phases
        channel = tile.block.number * self.block + place.group * self.shape.maps + vector * self.lanes
        return point(
            place.image, channel, rows.result(place.row + row), columns.result(place.column + column)
        )

    def _taps(self, tile: _Tile, r: Coordinate, rows: SourceRows) -> None:
        """The columns of the filter, in their order, for so the weights lie in memory: a loop over those that
        reach the whole tile, the others one by one, or all at once for few channels."""
        meet = self.shape.channels <= STRAIGHT_CHANNELS and len(tile.block.vectors) == 1
        whole = tile.run.whole_taps if len(tile.run.whole_taps) > 1 and not meet else range(0)
        parts = [
            (affine(s), columns) for s, columns in enumerate(tile.run.reach) if columns and s not in whole
        ]
        before = [tap for tap in parts if not whole or tap[0].constant < whole.start]
        self._each_tap(tile, r, before, rows)
        if whole:
            with self.k.loop("s", whole.start, whole.stop) as s:
                self._channels(tile, r, [(s, tile.run.reach[whole.start])], rows)
        self._each_tap(tile, r, parts[len(before) :], rows)

    def _each_tap(self, tile: _Tile, r: Coordinate, taps: Sequence[_Tap], rows: SourceRows) -> None:
        """Taps that each reach some columns of a tile."""
        together = self.shape.channels <= STRAIGHT_CHANNELS
        for group in (taps,) if together and taps else ([tap] for tap in taps):
            self._channels(tile, r, group, rows)

    def _channels(self, tile: _Tile, r: Coordinate, taps: Sequence[_Tap], rows: SourceRows) -> None:
        """All channels, two at a time: then less goes to the loop. A tile that fills the registers takes them
        one by one, for it has none for the next channel's weights."""
        pixels, vectors = tile.rows // tile.joined * tile.run.pixels, len(tile.block.vectors)
        full = pixels * vectors + vectors + 1 >= usable_registers(self.site.target)
        few = self.shape.channels <= STRAIGHT_CHANNELS
        factor = self.shape.channels if few else 1 if full else 2
        lines = self.shape.channels // LINE if self.ahead.is_streamed or self.ahead.is_asked_on_the_way else 0

        def step(channel: Affine) -> None:
            self._step(tile, r, taps, channel, rows)

        def step_ahead(line: Affine, channel: Affine) -> None:
            if self.ahead.is_streamed:
                self._prefetch(tile, line * LINE, channel)
            step(line * LINE + channel)

        if lines:
            with self.k.loop("line", 0, lines) as line:
                if self.ahead.is_asked_on_the_way:
                    self._ask(tile, line, -(-tile.run.pixels // lines))
                self.k.unrolled("c", LINE, factor, partial(step_ahead, line))
        whole = lines * LINE
        self.k.unrolled("c", self.shape.channels - whole, factor, lambda c: step(c + whole))

    def _ask(self, tile: _Tile, line: Affine, pixels: int) -> None:
        """Ask for what the epilogue reads at the `pixels` pixels of each row that are the turn of a line."""
        epilogue = self._epilogue(tile.place.band)
        vectors = self._line_starts(tile.block)
        epilogue.prefetch(
            self._point(tile, vector, row, line * pixels + pixel)
            for vector, row, pixel in product(vectors, range(tile.rows), range(pixels))
        )

    def _prefetch(self, tile: _Tile, line: Affine, number: Affine) -> None:
        """Ask for a line of channels of every LINE-th pixel from `number` on of the next tile, which may
        begin the next row."""
        place, pixels = tile.place, tile.run.pixels
        distance = self.tile_rows * self.shape.source[1] if self.made else tile.rows * pixels
        for first in range(0, tile.rows * pixels, LINE):
            column = place.column + number + (distance + first)
            self.source.prefetch(self.source_tensor.place((place.image, line, place.row, column)))

    def _step(
        self, tile: _Tile, r: Coordinate, taps: Sequence[_Tap], channel: Affine, rows: SourceRows
    ) -> None:
        """The FMAs of one channel and one row of the filter. Each source element is broadcast once, for all
        the taps and pixels that meet there: loaded again it would be kept in a register, and spill."""
        shape, place, phase, acc = self.shape, tile.place, tile.phases[1], tile.acc
        meeting: dict[Affine, list[tuple[int, list[Vec]]]] = {}
        for s, reach in taps:
            weights = self._weights(tile, (r, phase.filter(s)), channel)
            for j in reach:
                meeting.setdefault(affine(phase.source(affine(j), s)), []).append((j, weights))
        source_channel = channel + place.group * shape.channels

        def element(row: int, column: Affine) -> Vec:
            if row not in rows:
                return self.k.constant(0.0, self.lanes)
            if self.made:
                return self.made.splat(row, place.column + column, channel, self.lanes)
            at = (place.image, source_channel, rows[row], place.column * phase.stride + column)
            return self.source.splat(self.source_tensor.place(at), self.lanes)

        for i in sorted({row // tile.joined for row in rows}):
            for column in sorted(meeting, key=lambda c: c.constant):
                parts = [element(i * tile.joined + row, column) for row in range(tile.joined)]
                value = parts[0] if tile.joined == 1 else self.k.join(parts[0], parts[1])
                for j, weights in meeting[column]:
                    for number, weight in enumerate(weights):
                        acc[i, j, number] = self.k.fma(value, weight, acc[i, j, number])

    def _weights(self, tile: _Tile, place: tuple[Coordinate, Coordinate], channel: Affine) -> list[Vec]:
        """The vectors of weights of a block of maps, for a place of the filter and a channel."""
        block, group = tile.block, tile.place.group
        vectors = [
            self.weights.load(group, block.number, self.block, place, channel, vector, count)
            for vector, count in block.vectors
        ]
        return vectors if tile.joined == 1 else [self.k.join(vector, vector) for vector in vectors]
