"""Direct contraction: convolution, stride-1 input gradient and dense product as register-tiled FMAs.

A tile of pixels x vectors of maps is accumulated over all taps and channels, then handed to the
epilogue while it is still in registers. Source elements are broadcast, so the source may have any
layout without blocks; maps run along the lanes, so results are channels-last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from cnnc.backend.kernel.builder import Coordinate, KernelBuilder, Tile, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.columns import Run, column_runs
from cnnc.backend.kernels.contraction import Contraction, as_images, dense, fold_rows, forward, input_grad
from cnnc.backend.kernels.region import Epilogue, Point, Region, point
from cnnc.backend.kernels.site import Arguments, Site, Tensor, channel_tiles, declare
from cnnc.backend.kernels.tiles import pixels_for
from cnnc.backend.kernels.weights import Weights
from cnnc.errors import UnsupportedError
from cnnc.ir.layout import CHANNELS_LAST, Layout
from cnnc.ir.types import TensorType
from cnnc.ops.conv import Conv2d, Conv2dInputGrad
from cnnc.ops.dense import Dense, DenseInputGrad

STRAIGHT_CHANNELS = 8
"""Up to so many channels the loop over them is unrolled whole, and over the columns of the filter too."""

_Tap = tuple[Affine, tuple[int, ...]]
"""A column of the filter, and the columns of a tile whose source it reaches."""


def conv2d(site: Site) -> Kernel:
    """Any stride, dilation and group count; with dilation the rows must not be padded."""
    region = Region(site)
    assert isinstance(region.anchor, Conv2d)
    x, w = region.anchor_tensor(0), region.anchor_tensor(1)
    shape = forward(region.anchor, x.type, w.type, region.result.type)
    return direct(site, shape)


def conv2d_input_grad(site: Site) -> Kernel:
    """Stride 1 only; greater strides are made of it and of dilate2d before kernels are chosen."""
    region = Region(site)
    assert isinstance(region.anchor, Conv2dInputGrad)
    if region.anchor.stride != (1, 1):
        raise UnsupportedError(f"an input gradient of stride {region.anchor.stride} has no kernel of its own")
    dy, w = region.anchor_tensor(0), region.anchor_tensor(1)
    return direct(site, input_grad(region.anchor, dy.type, w.type, region.result.type))


def dense_product(site: Site) -> Kernel:
    """x [N,*S] times w [O,*S], both with the elements of S in the same order."""
    region = Region(site)
    assert isinstance(region.anchor, Dense)
    x, w = region.anchor_tensor(0).type, region.anchor_tensor(1).type
    return direct(_with_matrix(site, region), dense(x.shape[0], x.size // x.shape[0], w.shape[0]))


def dense_input_grad(site: Site) -> Kernel:
    """dy [N,O] times w [O,*S], w in the order of the result's elements."""
    region = Region(site)
    assert isinstance(region.anchor, DenseInputGrad)
    dy, w = region.anchor_tensor(0).type, region.anchor_tensor(1).type
    shape = dense(dy.shape[0], w.shape[0], w.size // w.shape[0])
    return direct(_with_matrix(site, region), replace(shape, flipped=True))


def _with_matrix(site: Site, region: Region) -> Site:
    """The site with its weights [O,*S] seen as a 1x1 filter [O,K,1,1], in memory as they were."""
    number, w = region.operand(1), region.anchor_tensor(1)
    maps, block = w.shape[0], w.layout.block
    seen = TensorType(w.type.dtype, (maps, w.type.size // maps, 1, 1))
    matrix = Tensor(seen, Layout(f"Acdb{block}a") if block > 1 else CHANNELS_LAST)
    operands = (*site.operands[:number], matrix, *site.operands[number + 1 :])
    return replace(site, operands=operands)


def direct(site: Site, shape: Contraction) -> Kernel:
    """The kernel of one contraction with its epilogue."""
    region = Region(site)
    weight_number = region.operand(1)
    if shape.is_pointwise and region.window == (1, 1):
        lanes = site.lanes(shape.maps)
        shape = fold_rows(shape, site.target, max(1, site.operands[weight_number].layout.block // lanes))
        rank = region.result.type.rank
        site = as_images(
            site, shape, lambda i: i != weight_number and (i == region.operand(0) or _rank(site, i) == rank)
        )
    return _Direct(site, shape).build()


def _rank(site: Site, number: int) -> int:
    return site.operands[number].type.rank


@dataclass(frozen=True)
class _Block:
    """A block of maps: its number, the maps a whole block has, and (vector, count) of what it holds."""

    number: Coordinate
    size: int
    vectors: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Place:
    """Where a tile stands: image, group, first row and first column."""

    image: Coordinate
    group: Coordinate
    row: Coordinate
    column: Coordinate


@dataclass(frozen=True)
class _Part:
    """Rows of a tile while they are accumulated: the registers, where the tile stands, what it covers."""

    acc: Tile
    place: _Place
    rows: tuple[int, ...]
    run: Run
    block: _Block


class _Direct:
    """Writes one direct contraction."""

    def __init__(self, site: Site, shape: Contraction) -> None:
        self.site, self.shape, self.region = site, shape, Region(site)
        self.k = KernelBuilder(self.region.body.name if len(self.region.body.nodes) > 1 else site.op.name)
        self.arguments: Arguments = declare(self.k, site)
        self.source = self.arguments.operands[self.region.operand(0)]
        self.source_tensor = self.region.anchor_tensor(0)
        layout = self.region.anchor_tensor(1).layout
        handle = self.arguments.operands[self.region.operand(1)]
        self.lanes, self.block = self._blocking(layout.block)
        self.weights = Weights(handle, layout, shape, self.lanes)
        rows, columns = self.region.window
        self.rows = rows
        vectors = len(channel_tiles(min(self.block, shape.maps), self.lanes))
        most = pixels_for(site.target, shape.result[1], vectors, rows, columns)
        self.runs = column_runs(shape, most, columns)

    def _blocking(self, packed: int) -> tuple[int, int]:
        """Lanes and maps of a block: those of the packing, or without one the target's own."""
        if packed > 1:
            return min(self.site.target.lanes, packed), packed
        if not self.shape.flipped:
            return 1, 1
        lanes = self.site.lanes(self.shape.maps)
        return lanes, lanes * min(4, -(-self.shape.maps // lanes))

    def build(self) -> Kernel:
        whole, rest = divmod(self.shape.maps, self.block)
        tiles = self.shape.result[0] // self.rows
        with ExitStack() as nest:

            def parallel(name: str, extent: int) -> Affine:
                return nest.enter_context(self.k.loop(name, 0, extent, parallel=True))

            outer = parallel("block", whole) if not rest and self._weights_outer() else None
            image, row, group = (
                parallel("n", self.shape.batch),
                parallel("row", tiles),
                parallel("group", self.shape.groups) if self.shape.groups > 1 else affine(0),
            )
            inner = outer if outer is not None or rest else parallel("block", whole)
            place = _Place(image, group, row * self.rows, 0)
            vectors = tuple(enumerate(c for _, c in channel_tiles(self.block, self.lanes)))
            if inner is not None:
                self._row(place, _Block(inner, self.block, vectors))
            else:
                self._blocks(place, whole, rest, vectors)
        return self.k.build()

    def _blocks(self, place: _Place, whole: int, rest: int, vectors: tuple[tuple[int, int], ...]) -> None:
        """All blocks of maps, the last of which is not full."""
        if whole:
            with self.k.once_or_loop("block", whole) as number:
                self._row(place, _Block(number, self.block, vectors))
        tail = tuple(enumerate(c for _, c in channel_tiles(rest, self.lanes)))
        self._row(place, _Block(whole, self.block, tail))

    def _weights_outer(self) -> bool:
        """Whether to keep a block of weights while all pixels pass: if weights outweigh the source."""
        weights = self.shape.maps * self.shape.channels * self.shape.kernel[0] * self.shape.kernel[1]
        source = self.shape.channels * self.shape.source[0] * self.shape.source[1]
        return self.shape.groups == 1 and weights > self.shape.batch * source

    def _row(self, place: _Place, block: _Block) -> None:
        for run in self.runs:
            with self.k.once_or_loop("tile", run.count) as tile:
                column = tile * run.pixels + run.first
                self._tile(_Place(place.image, place.group, place.row, column), run, block)

    def _tile(self, place: _Place, run: Run, block: _Block) -> None:
        """Accumulate one tile and finish it. Padded rows reach differently far and go one by one."""
        acc = self.k.register("acc", self.lanes, (self.rows, run.pixels, len(block.vectors)))
        all_rows = tuple(range(self.rows))
        for rows in ((row,) for row in all_rows) if self.shape.overhangs(0) else (all_rows,):
            self._accumulate(_Part(acc, place, rows, run, block))
        epilogue = Epilogue(self.k, self.region, self.arguments)
        for number, (vector, count) in enumerate(block.vectors):
            channel = block.number * block.size + place.group * self.shape.maps + vector * self.lanes
            values: dict[Point, Vec] = {
                point(place.image, channel, place.row + row, place.column + j): acc[row, j, number]
                for row in all_rows
                for j in range(run.pixels)
            }
            epilogue.finish(values, count)

    def _accumulate(self, part: _Part) -> None:
        """Add all taps and channels."""
        shape = self.shape
        if not shape.overhangs(0):
            with self.k.once_or_loop("r", shape.kernel[0]) as r:
                self._taps(part, r)
            return
        if shape.dilation[0] != 1:
            raise UnsupportedError("a dilated convolution with padded rows has no kernel of its own")
        above = shape.origin[0] - (part.place.row + part.rows[0]) * shape.stride[0]
        with self.k.loop("r", (0, above), (shape.kernel[0], above + shape.source[0])) as r:
            self._taps(part, r)

    def _taps(self, part: _Part, r: Affine) -> None:
        """The columns of the filter: all at once for few channels, else one by one, by a loop where every
        tap reaches all."""
        taps = [(affine(s), reach) for s, reach in enumerate(part.run.reach) if reach]
        if self.shape.channels <= STRAIGHT_CHANNELS:
            for channel in range(self.shape.channels):
                self._step(part, r, taps, affine(channel))
            return
        if part.run.reaches_all and len(taps) > 1:
            with self.k.loop("s", 0, len(taps)) as s:
                self._channels(part, r, (s, taps[0][1]))
            return
        for tap in taps:
            self._channels(part, r, tap)

    def _channels(self, part: _Part, r: Affine, tap: _Tap) -> None:
        self.k.unrolled("c", self.shape.channels, 2, lambda c: self._step(part, r, [tap], c))

    def _step(self, part: _Part, r: Affine, taps: Sequence[_Tap], channel: Affine) -> None:
        """The FMAs of one channel and one row of the filter. Each source element is broadcast once, for all
        the taps and pixels that meet there: loaded again it would be kept in a register, and spill."""
        shape, place, acc = self.shape, part.place, part.acc
        meeting: dict[Affine, list[tuple[int, list[Vec]]]] = {}
        for s, reach in taps:
            weights = self._weights(part, (r, s), channel)
            for j in reach:
                column = s * shape.dilation[1] + (j * shape.stride[1] - shape.origin[1])
                meeting.setdefault(column, []).append((j, weights))
        source_channel = channel + place.group * shape.channels
        for row in part.rows:
            y = (place.row + row) * shape.stride[0] + r * shape.dilation[0] - shape.origin[0]
            for column in sorted(meeting, key=lambda c: c.constant):
                x = place.column * shape.stride[1] + column
                index = self.source_tensor.place((place.image, source_channel, y, x))
                value = self.source.splat(index, self.lanes)
                for j, weights in meeting[column]:
                    for number, weight in enumerate(weights):
                        acc[row, j, number] = self.k.fma(value, weight, acc[row, j, number])

    def _weights(self, part: _Part, tap: tuple[Affine, Affine], channel: Affine) -> list[Vec]:
        """The vectors of weights of a block of maps, for a tap and channel."""
        block, group = part.block, part.place.group
        return [
            self.weights.load(group, block.number, block.size, tap, channel, vector, count)
            for vector, count in block.vectors
        ]
