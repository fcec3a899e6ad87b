"""Weight gradients of convolutions and dense products as register-tiled FMAs.

dw[m, c, r, s] = sum over n, y, x of dy[n, m, y, x] * source[n, c, y*sh + r*dh - top, x*sw + s*dw - left]. A
register tile holds some channels (or, of a source with few, columns of the filter times channels) by some
vectors of maps. It adds up a chunk of pixels at a time, in one fixed order; weight_grad_parts.py says which.
Taps outside the source are left out. The source is channels-last; the result is packed in blocks of maps, as
a forward contraction wants its weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property

from cnnc.backend.kernel.builder import BufferHandle, Coordinate, KernelBuilder, Tile, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.arrays import as_arrays
from cnnc.backend.kernels.contraction import Contraction, dense
from cnnc.backend.kernels.depthwise_grad import depthwise_weight_grad
from cnnc.backend.kernels.loops import each_run
from cnnc.backend.kernels.prologue import Loader
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.site import Site, channel_tiles, declare
from cnnc.backend.kernels.tiles import split
from cnnc.backend.kernels.weight_grad_operands import (
    Chunk,
    Gradients,
    JoinedRows,
    Maps,
    Pixel,
    Segment,
    Source,
    is_joined,
    overhangs,
    segments,
    source_row,
)
from cnnc.backend.kernels.weight_grad_parts import (
    SET_BYTES,
    Work,
    choose_chunks,
    choose_parts,
    rows_of_a_tile,
)
from cnnc.ops.conv import Conv2dWeightGrad
from cnnc.ops.dense import DenseWeightGrad
from cnnc.ops.partial import parts_of

SET = SET_BYTES // 8
"""Elements: rows of gradients that lie so far apart, inside wider ones, meet in two sets of a cache, and are
copied aside. For others inside wider ones it does not pay."""

UNROLL = 2
"""Pixels of one turn of the innermost loop."""


def conv2d_weight_grad(site: Site) -> Kernel:
    """Any stride, padding, dilation and group count; of all images, or of groups of them apart."""
    region = Region(site)
    op, dy, x = region.anchor, region.anchor_tensor(0), region.anchor_tensor(1)
    assert isinstance(op, Conv2dWeightGrad)
    strips = parts_of(op)
    shape = Contraction(
        x.shape[0],
        op.groups,
        x.shape[1] // op.groups,
        dy.shape[1] // op.groups,
        (x.shape[2], x.shape[3]),
        (dy.shape[2], dy.shape[3]),
        op.kernel,
        op.stride,
        op.pad[:2],
        op.dilation,
    )
    region.expect_prologue(1 if shape.is_pointwise and shape.groups == 1 else None)
    if shape.is_depthwise:
        return depthwise_weight_grad(site, shape, strips)
    return _weight_grad(site, _in_columns(shape, strips) if shape.is_pointwise else shape, strips)


def dense_weight_grad(site: Site) -> Kernel:
    """dy [N,O], x [N,*S] -> dw, the elements of S in the order x has them in."""
    region = Region(site)
    assert isinstance(region.anchor, DenseWeightGrad)
    dy, x = region.anchor_tensor(0), region.anchor_tensor(1)
    return _weight_grad(site, _in_columns(dense(x.shape[0], x.type.size // x.shape[0], dy.shape[1]), 1), 1)


def _in_columns(shape: Contraction, strips: int) -> Contraction:
    """The pixels of each strip of images as one column: their order in memory."""
    pixels = shape.batch * shape.result[0] * shape.result[1] // strips
    return replace(shape, batch=strips, source=(pixels, 1), result=(pixels, 1))


def _weight_grad(site: Site, shape: Contraction, strips: int) -> Kernel:
    """The kernel, with tensors seen as [N,H,W,C], and weights as [strips,blocks,Kh,segments,length,B]."""
    region, result = Region(site), site.results[0]
    x, block, maps = region.anchor_tensor(1), result.layout.block, shape.groups * shape.maps
    vectors = -(-min(block, shape.maps) // min(site.target.lanes, block))
    joined = x.is_dense and is_joined(site.target, shape, vectors)
    channels = shape.groups * shape.channels
    row = (shape.source[1] * channels,) if joined else (shape.source[1], channels)
    runs = (1, shape.kernel[1] * shape.channels) if joined else (shape.kernel[1], shape.channels)
    weights = (strips, -(-maps // block), shape.kernel[0], *runs, block)
    seen = {
        region.operand(0): (shape.batch, *shape.result, maps),
        region.operand(1): (shape.batch, shape.source[0], *row),
    }
    return _WeightGrad(as_arrays(site, weights, seen), shape, joined).build()


@dataclass(frozen=True)
class _Part:
    """What one iteration computes: a strip and a group, and of these some filter rows, weights of each
    segment and blocks of maps, of which the first are given."""

    strip: Affine
    group: Affine
    r: Affine
    start: Affine
    block: Affine


@dataclass(frozen=True)
class _Block:
    """A block of maps of a group: its number there and inside the part, and the maps of each vector."""

    number: Affine
    inside: Affine
    counts: tuple[int, ...]


@dataclass(frozen=True)
class _Place:
    """A weight of a part, by a block of maps; `r` and `weight` count from the part's first."""

    part: _Part
    block: _Block
    r: Affine
    segment: Segment
    weight: Affine

    def next(self, number: Affine | int) -> _Place:
        """The weight that many places on."""
        return replace(self, weight=self.weight + number)


class _WeightGrad:
    """Writes one weight gradient."""

    def __init__(self, site: Site, shape: Contraction, joined: bool) -> None:
        self.site, self.shape = site, shape
        self.k = KernelBuilder(site.op.name)
        self.arguments, self.region = declare(self.k, site), Region(site)
        dy, source = (self.arguments.operands[self.region.operand(i)] for i in (0, 1))
        self.strips, *_, self.block = self.arguments.results[0].buffer.shape
        self.lanes = min(site.target.lanes, self.block)
        self.segments = segments(shape, joined)
        self.vectors = len(channel_tiles(min(self.block, shape.maps), self.lanes))
        self.parts = choose_parts(site.target, self._work())
        maps = shape.groups * shape.maps
        given = self.region.anchor_tensor(0).pitch or maps
        pitches = shape.stride[1] * shape.groups * shape.channels, given if given % SET == 0 else maps
        self.chunks = choose_chunks(site.target, self.parts, pitches, self.region.has_prologue)
        most = rows_of_a_tile(site.target, self.parts.length, self.vectors)
        self.sizes = split(self.parts.length, most)
        length = self.parts.length
        self.source: Source = (
            JoinedRows.declare(self.k, source, shape, self.chunks)
            if joined
            else Maps.declare(
                self.k, Loader.of(self.k, self.region, self.arguments, 1), shape, self.chunks, length
            )
        )
        self.gradients = Gradients.declare(self.k, dy, self.chunks, self.parts.blocks * self.block)
        sums = (self.parts.rows, self.parts.blocks, len(self.segments), length, self.block)
        self.sums = self.k.scratch("sums", sums) if self.chunks.number > 1 else None

    def _work(self) -> Work:
        shape = self.shape
        return Work(
            strips=self.strips,
            pixels=(shape.batch // self.strips, *shape.result),
            groups=shape.groups,
            rows=shape.kernel[0],
            segments=len(self.segments),
            length=self.segments[0].length,
            blocks=-(-shape.maps // self.block),
            block=self.block,
            vectors=self.vectors,
            step=(min(shape.stride[0], shape.kernel[0]), min(shape.stride[1], shape.kernel[1])),
        )

    def build(self) -> Kernel:
        shape, parts, (down, along, across) = self.shape, self.parts, self.parts.counts
        with ExitStack() as nest:

            def parallel(name: str, extent: int) -> Affine:
                if extent == 1:
                    return affine(0)
                return nest.enter_context(self.k.loop(name, 0, extent, parallel=True))

            part = _Part(
                strip=parallel("strip", self.strips),
                group=parallel("group", shape.groups),
                r=parallel("r", down),
                start=parallel("channels", along) * parts.length,
                block=parallel("maps", across) * parts.blocks,
            )
            self._clear_sums(part)
            self._chunks(part)
            self._finish_sums(part)
        return self.k.build()

    def _chunks(self, part: _Part) -> None:
        """Add the products of all chunks, in their order."""
        first, sizes = part.strip * (self.shape.batch // self.strips), self.chunks

        def images(image: Affine, count: int) -> None:
            def rows(row: Affine, height: int) -> None:
                self._chunk(part, Chunk(first + image, row, count, height))

            each_run(self.k, "rows", sizes.rows, rows)

        each_run(self.k, "images", sizes.images, images)

    def _chunk(self, part: _Part, chunk: Chunk) -> None:
        """Add the products of a chunk to all sums of the part."""
        for block in self._blocks(part):
            inside, map = block.inside * self.block, self._map(part, block)
            self.gradients.prepare(self.k, chunk, inside, map, block.counts, self.lanes)
        for r in self._filter_rows():
            self.source.prepare(self.k, part.r + r, chunk, self._channel(part), self.site.target.lanes)
            for block in self._blocks(part):
                for segment in self.segments:
                    self._tiles(_Place(part, block, r, segment, affine(0)), chunk)

    def _filter_rows(self) -> Iterator[Affine]:
        """The filter rows of a part, as a loop."""
        with self.k.once_or_loop("r", self.parts.rows) as r:
            yield r

    def _blocks(self, part: _Part) -> Iterator[_Block]:
        """The blocks of maps of a part, as loops; the last of all blocks may not be full."""
        whole, rest = divmod(self.shape.maps, self.block)
        end = part.block + self.parts.blocks
        is_cut = self.parts.counts[2] * self.parts.blocks > whole
        full, tail = (tuple(n for _, n in channel_tiles(maps, self.lanes)) for maps in (self.block, rest))
        if whole:
            with self.k.loop("block", part.block, (end, whole) if is_cut else end) as block:
                yield _Block(block, block - part.block, full)
        if rest:
            with self.k.loop("last", (part.block, whole), (end, whole + 1)) as block:
                yield _Block(block, block - part.block, tail)

    def _tiles(self, first: _Place, chunk: Chunk) -> None:
        """Add the products of a chunk, from the first weight of a segment on."""
        each_run(self.k, "tile", self.sizes, lambda start, rows: self._tile(first.next(start), rows, chunk))

    def _tile(self, place: _Place, rows: int, chunk: Chunk) -> None:
        """Sum one tile over a chunk in registers. With too few accumulators to hide the latency of an FMA,
        even and odd pixels are summed apart."""
        target, vectors = self.site.target, len(place.block.counts)
        ways = 2 if rows * vectors < target.fma_units * target.fma_latency else 1
        acc = self.k.register("acc", self.lanes, (ways, rows, vectors))
        turns = itertools.cycle(range(ways))
        self._pixels(place, chunk, lambda pixel: self._pixel(place, chunk, pixel, (acc, next(turns), rows)))
        for i in range(rows):
            totals = [acc[0, i, v] + acc[1, i, v] if ways > 1 else acc[0, i, v] for v in range(vectors)]
            if self.sums is None:
                self._finish(place.next(i), totals)
            else:
                self._add(self.sums, place.next(i), totals)

    def _pixels(self, place: _Place, chunk: Chunk, body: Callable[[Pixel], None]) -> None:
        """`body` for the pixels of a chunk whose taps are inside the source."""
        k, columns, r = self.k, place.segment.columns, place.part.r + place.r

        def row(n: Affine, y: Affine) -> None:
            with source_row(k, self.shape, r, chunk.row + y) as inside:
                k.unrolled("x", len(columns), UNROLL, lambda x: body(Pixel(n, y, x + columns.start, inside)))

        with k.once_or_loop("n", chunk.images) as n:
            if self.shape.result[1] == 1 and not overhangs(self.shape, 0):
                k.unrolled("y", chunk.rows, UNROLL, lambda y: row(n, y))
            else:
                with k.once_or_loop("y", chunk.rows) as y:
                    row(n, y)

    def _pixel(self, place: _Place, chunk: Chunk, pixel: Pixel, tile: tuple[Tile, int, int]) -> None:
        """Add one pixel's products to a tile: the registers, which of its sums, how many weights."""
        part, block, (acc, way, rows) = place.part, place.block, tile
        if self.is_streamed:
            self._prefetch(place, chunk, pixel, rows)
        inside, map, lanes = block.inside * self.block, self._map(part, block), self.lanes
        gradients = [
            self.gradients.load(chunk, pixel, inside + v * lanes, map + v * lanes, lanes, count)
            for v, count in enumerate(block.counts)
        ]
        for i in range(rows):
            weight = place.weight + i
            channel = self._channel(part) + weight
            value = self.source.splat(chunk, pixel, place.segment, weight, channel, lanes)
            for v, gradient in enumerate(gradients):
                acc[way, i, v] = self.k.fma(value, gradient, acc[way, i, v])

    @cached_property
    def is_streamed(self) -> bool:
        """Whether chunks of a pointwise contraction come from memory: then they are asked for a chunk ahead.
        A wider window reads most of a chunk's source again for every tap."""
        dy, x = (self.region.anchor_tensor(i).type for i in (0, 1))
        is_large = dy.nbytes + x.nbytes > self.site.target.l2_bytes
        return self.shape.is_pointwise and self.chunks.number > 1 and is_large

    def _prefetch(self, place: _Place, chunk: Chunk, pixel: Pixel, rows: int) -> None:
        """Ask for what the tile reads at the same place of the next chunk."""
        part, maps = place.part, sum(place.block.counts)
        at = chunk.image + pixel.image, chunk.row + pixel.row + chunk.rows, pixel.column
        for first in range(0, maps, LINE):
            self.gradients.handle.prefetch((*at, self._map(part, place.block) + first))
        for first in range(0, rows, LINE):
            self.source.handle.prefetch((*at, self._channel(part) + place.weight + first))

    def _map(self, part: _Part, block: _Block) -> Affine:
        """The first map of a block."""
        return part.group * self.shape.maps + block.number * self.block

    def _channel(self, part: _Part) -> Affine:
        """The first channel of a part."""
        return part.group * self.shape.channels + part.start

    def _clear_sums(self, part: _Part) -> None:
        if self.sums is None:
            return
        zero = self.k.constant(0.0, self.lanes)
        for place in self._places(part):
            for v in range(len(place.block.counts)):
                self.sums.store(self._sum(place, v), zero)

    def _add(self, sums: BufferHandle, place: _Place, totals: Sequence[Vec]) -> None:
        for v, total in enumerate(totals):
            sums.store(self._sum(place, v), total + sums.load(self._sum(place, v), self.lanes))

    def _finish_sums(self, part: _Part) -> None:
        """Store what was summed."""
        if self.sums is None:
            return
        for place in self._places(part):
            vectors = range(len(place.block.counts))
            self._finish(place, [self.sums.load(self._sum(place, v), self.lanes) for v in vectors])

    def _sum(self, place: _Place, vector: int) -> tuple[Coordinate, ...]:
        """Where the sums of a weight are kept."""
        return place.r, place.block.inside, place.segment.number, place.weight, vector * self.lanes

    def _places(self, part: _Part) -> Iterator[_Place]:
        """Every weight of the part by each of its blocks, as loops."""
        for r in self._filter_rows():
            for block in self._blocks(part):
                for segment in self.segments:
                    with self.k.loop("weight", 0, self.parts.length) as weight:
                        yield _Place(part, block, r, segment, weight)

    def _finish(self, place: _Place, totals: Sequence[Vec]) -> None:
        """Hand the gradients of a weight to the epilogue, and store zeros where a block has no map at all.
        Blocks of a group follow those of the group before."""
        part, block = place.part, place.block
        number = block.number + part.group * (self.shape.maps // self.block)
        where = (part.strip, number, part.r + place.r, place.segment.number, part.start + place.weight)
        Epilogue(self.k, self.region, self.arguments).finish(
            {point(*where, v * self.lanes): total for v, total in enumerate(totals)}, self.lanes
        )
        for v in range(len(totals), self.block // self.lanes):
            for result in self.arguments.results:
                result.store((*where, v * self.lanes), self.k.constant(0.0, self.lanes))
