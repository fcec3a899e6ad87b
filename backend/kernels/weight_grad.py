"""Weight gradients of convolutions and dense products as register-tiled FMAs.

dw[m, c, r, s] = sum over n, y, x of dy[n, m, y, x] * source[n, c, y*sh + r*dh, x*sw + s*dw]. A register
tile holds some channels (or, where they lie side by side in a source row, columns of the filter times
channels) by some vectors of maps; it is summed over all pixels of all images in registers, in one fixed
order, and stored once. The source is channels-last and not padded; the result is packed in blocks of
maps, as a forward contraction wants its weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from cnnc.backend.kernel.builder import Coordinate, KernelBuilder, Tile
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.contraction import Contraction, dense
from cnnc.backend.kernels.site import Site, Tensor, channel_tiles, declare
from cnnc.backend.kernels.tiles import RegisterTile, fits, split, step_cycles
from cnnc.errors import UnsupportedError
from cnnc.ir.layout import Layout
from cnnc.ir.types import TensorType
from cnnc.ops.conv import Conv2dWeightGrad
from cnnc.ops.dense import DenseWeightGrad


def conv2d_weight_grad(site: Site) -> Kernel:
    """Any stride, dilation and group count; the input is padded before, never here."""
    op, (dy, x) = site.op, site.operands
    assert isinstance(op, Conv2dWeightGrad)
    if any(op.pad):
        raise UnsupportedError("a weight gradient of a padded input has no kernel of its own")
    shape = Contraction(
        x.shape[0],
        op.groups,
        x.shape[1] // op.groups,
        dy.shape[1] // op.groups,
        (x.shape[2], x.shape[3]),
        (dy.shape[2], dy.shape[3]),
        op.kernel,
        op.stride,
        (0, 0),
        op.dilation,
    )
    return _weight_grad(site, _one_row(shape) if shape.is_pointwise else shape)


def dense_weight_grad(site: Site) -> Kernel:
    """dy [N,O], x [N,*S] -> dw, the elements of S in the order x has them in."""
    assert isinstance(site.op, DenseWeightGrad)
    dy, x = site.operands
    return _weight_grad(site, _one_row(dense(x.shape[0], x.type.size // x.shape[0], dy.shape[1])))


def _one_row(shape: Contraction) -> Contraction:
    """All pixels of all images as one row: their order in memory."""
    pixels = shape.batch * shape.result[0] * shape.result[1]
    return replace(shape, batch=1, source=(1, pixels), result=(1, pixels))


def _weight_grad(site: Site, shape: Contraction) -> Kernel:
    """The kernel, with tensors seen by rows: a source row is one axis, and so are a filter row's weights."""
    block = site.results[0].layout.block
    dw = TensorType("f32", (shape.groups * shape.maps, shape.kernel[0], shape.kernel[1] * shape.channels))
    result = Tensor(dw, Layout(f"Abc{block}a") if block > 1 else Layout("abc"))
    row = shape.source[1] * shape.groups * shape.channels
    source = Tensor(TensorType("f32", (shape.batch, shape.source[0], row)), Layout("abc"))
    dy_type = TensorType("f32", (shape.batch, *shape.result, shape.groups * shape.maps))
    operands = (Tensor(dy_type, Layout("abcd")), source)
    return _WeightGrad(replace(site, operands=operands, results=(result,)), shape).build()


@dataclass(frozen=True)
class _Segment:
    """Neighbours in a source row that a tile's rows run along: `length` of them, `offset` elements
    behind a window's first; they are the weights of a filter row from `weight` on."""

    weight: int
    offset: int
    length: int


@dataclass(frozen=True)
class _Block:
    """A block of maps: its number and the maps in each of its vectors."""

    number: Coordinate
    counts: tuple[int, ...]


@dataclass(frozen=True)
class _Part:
    """What one tile computes: `rows` weights of filter row `r` from `start` in a segment, for one block."""

    group: Affine
    r: Affine
    segment: _Segment
    start: Affine
    rows: int
    block: _Block


class _WeightGrad:
    """Writes one weight gradient."""

    def __init__(self, site: Site, shape: Contraction) -> None:
        self.site, self.shape = site, shape
        self.k = KernelBuilder(site.op.name)
        arguments = declare(self.k, site)
        self.dy, self.source = arguments.operands
        self.dw = arguments.results[0]
        self.block = site.results[0].layout.block
        self.lanes = min(site.target.lanes, self.block)
        self.segments = self._segments()
        self.rows = self._rows_of_a_tile()

    def _segments(self) -> tuple[_Segment, ...]:
        shape = self.shape
        if shape.dilation[1] == 1 and shape.groups == 1:
            return (_Segment(0, 0, shape.kernel[1] * shape.channels),)
        step = shape.dilation[1] * shape.groups * shape.channels
        return tuple(_Segment(s * shape.channels, s * step, shape.channels) for s in range(shape.kernel[1]))

    def _rows_of_a_tile(self) -> int:
        """Rows of the best tile; of equal ones the one that divides the segment, to spread over threads."""
        length, target = self.segments[0].length, self.site.target
        vectors = len(channel_tiles(min(self.block, self.shape.maps), self.lanes))

        def cost(rows: int) -> tuple[float, bool, int]:
            cycles = sum(step_cycles(target, RegisterTile(size, vectors)) for size in split(length, rows))
            return cycles, length % rows != 0, rows

        most = min(length, target.registers)
        return min((r for r in range(1, most + 1) if fits(target, RegisterTile(r, vectors))), key=cost)

    def build(self) -> Kernel:
        shape, length = self.shape, self.segments[0].length
        even = len(self.segments) == 1 and length % self.rows == 0
        with ExitStack() as nest:

            def parallel(name: str, extent: int) -> Affine:
                return nest.enter_context(self.k.loop(name, 0, extent, parallel=True))

            group = parallel("group", shape.groups) if shape.groups > 1 else affine(0)
            r = parallel("r", shape.kernel[0])
            tile = parallel("tile", length // self.rows) if even else None
            for block in self._blocks(parallel):
                for segment in self.segments:
                    if tile is not None:
                        self._tile(_Part(group, r, segment, tile * self.rows, self.rows, block))
                    else:
                        self._tiles(group, r, segment, block)
        return self.k.build()

    def _blocks(self, parallel: Callable[[str, int], Affine]) -> tuple[_Block, ...]:
        """The blocks of maps: a parallel loop if all are full, else one by one."""
        whole, rest = divmod(self.shape.maps, self.block)
        full = tuple(count for _, count in channel_tiles(self.block, self.lanes))
        if not rest:
            return (_Block(parallel("block", whole), full),)
        tail = tuple(count for _, count in channel_tiles(rest, self.lanes))
        return (*(_Block(number, full) for number in range(whole)), _Block(whole, tail))

    def _tiles(self, group: Affine, r: Affine, segment: _Segment, block: _Block) -> None:
        """All tiles of a segment: a loop over those of the larger size, another over the smaller."""
        sizes = split(segment.length, self.rows)
        first = 0
        for size in dict.fromkeys(sizes):
            count = sizes.count(size)
            with self.k.once_or_loop("tile", count) as tile:
                self._tile(_Part(group, r, segment, tile * size + first, size, block))
            first += count * size

    def _tile(self, part: _Part) -> None:
        """Sum one tile over all pixels in registers, then store it.

        A tile with too few accumulators to hide the latency of an FMA sums even and odd pixels apart.
        """
        k, shape, target = self.k, self.shape, self.site.target
        chains = part.rows * len(part.block.counts)
        sums = 2 if chains < target.fma_units * target.fma_latency else 1
        acc = k.register("acc", self.lanes, (sums, part.rows, len(part.block.counts)))
        turns = itertools.cycle(range(sums))
        with k.once_or_loop("n", shape.batch) as n, k.once_or_loop("y", shape.result[0]) as y:
            k.unrolled("x", shape.result[1], 2, lambda x: self._pixel(acc, next(turns), part, (n, y, x)))
        # blocks of one group follow those of the group before; a map beyond the last gets dy's zeros
        number = part.block.number + part.group * (shape.maps // self.block)
        for i in range(part.rows):
            for vector in range(len(part.block.counts)):
                place = (number, part.r, part.segment.weight + part.start + i)
                lane = (vector * self.lanes,) if self.block > 1 else ()
                total = acc[0, i, vector] + acc[1, i, vector] if sums > 1 else acc[0, i, vector]
                self.dw.store((*place, *lane), total)
            self._clear_padding(part, number, i)

    def _clear_padding(self, part: _Part, number: Coordinate, i: int) -> None:
        """Zero the vectors of a block that hold no map at all."""
        place = (number, part.r, part.segment.weight + part.start + i)
        for vector in range(len(part.block.counts), self.block // self.lanes):
            self.dw.store((*place, vector * self.lanes), self.k.constant(0.0, self.lanes))

    def _pixel(self, acc: Tile, turn: int, part: _Part, pixel: tuple[Affine, Affine, Affine]) -> None:
        """Add one pixel's products to the tile's sum number `turn`."""
        shape, (n, y, x) = self.shape, pixel
        first_map = part.group * shape.maps + part.block.number * self.block
        gradients = [
            self.dy.load((n, y, x, first_map + vector * self.lanes), self.lanes, count)
            for vector, count in enumerate(part.block.counts)
        ]
        source_row = y * shape.stride[0] + part.r * shape.dilation[0]
        first = x * (shape.stride[1] * shape.groups * shape.channels) + part.group * shape.channels
        for i in range(part.rows):
            place = (n, source_row, first + part.segment.offset + part.start + i)
            value = self.source.splat(place, self.lanes)
            for vector, gradient in enumerate(gradients):
                acc[turn, i, vector] = self.k.fma(value, gradient, acc[turn, i, vector])
