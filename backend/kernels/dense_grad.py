"""Input gradients of dense layers, from the weights as the forward product has them: [blocks,K,B].

dx[n, k] = sum over o of dy[n, o] * w[o, k]. Lanes run along the maps o: a register tile is some rows by some
channels k, whose lanes are added up at the end, those of as many channels at a time. Each iteration of the
parallel nest computes some channels. It takes a few blocks of maps at a time, so that weights are read once,
in runs, and ahead of use; the sums wait in scratch memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.arrays import as_arrays
from cnnc.backend.kernels.contraction import dense
from cnnc.backend.kernels.dense import row_tiles, tiles_cycles
from cnnc.backend.kernels.direct import direct
from cnnc.backend.kernels.loops import each_run, vectors
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.rows import each_part
from cnnc.backend.kernels.site import Site, Tensor, declare
from cnnc.backend.kernels.tiles import RegisterTile, fits, split
from cnnc.ir.layout import CHANNELS_LAST
from cnnc.ir.types import TensorType
from cnnc.ops.dense import DenseInputGrad

PARTS = 16
"""Iterations of the parallel nest to aim at."""

LEAST_CHANNELS = 32
"""Of an iteration for many rows, all of which it copies aside."""

FEW_STEPS = 8
STEPS = 32
"""Vectors of maps that a tile adds up in registers, for few rows and for many: the sums are loaded and stored
that much less often. With few rows memory sets the pace, and likes to be read in long runs."""


_Range = tuple[Affine, int]
"""The first of some blocks, rows or channels, and how many."""


def dense_input_grad(site: Site) -> Kernel:
    """dy [N,O] times w [O,*S], w packed in blocks of maps or not at all, in the order of the result."""
    region = Region(site)
    assert isinstance(region.anchor, DenseInputGrad)
    dy, w = region.anchor_tensor(0), region.anchor_tensor(1)
    if w.layout.block == 1:
        return _unpacked(site, region)
    rows, channels, block = dy.shape[0], w.type.size // w.shape[0], w.layout.block
    weights = (-(-w.shape[0] // block), channels, block)
    seen = {region.operand(0): dy.shape, region.operand(1): weights}
    return _InputGrad(as_arrays(site, (rows, channels), seen)).build()


def _unpacked(site: Site, region: Region) -> Kernel:
    """The same for weights that are not packed."""
    dy, w = region.anchor_tensor(0).type, region.anchor_tensor(1).type
    shape = dense(dy.shape[0], w.shape[0], w.size // w.shape[0], apart=site.exact_images)
    return direct(_with_matrix(site, region), replace(shape, flipped=True))


def _with_matrix(site: Site, region: Region) -> Site:
    """The site with its weights [O,*S] seen as a 1x1 filter [O,K,1,1], in memory as they were."""
    number, w = region.operand(1), region.anchor_tensor(1).type
    matrix = Tensor(TensorType(w.dtype, (w.shape[0], w.size // w.shape[0], 1, 1)), CHANNELS_LAST)
    operands = (*site.operands[:number], matrix, *site.operands[number + 1 :])
    return replace(site, operands=operands)


class _InputGrad:
    """Writes one input gradient."""

    def __init__(self, site: Site) -> None:
        self.target, self.region = site.target, Region(site)
        self.k = KernelBuilder(self.region.body.name if self.region.epilogue else site.op.name)
        self.arguments = declare(self.k, site)
        self.dy, self.w = (self.arguments.operands[self.region.operand(i)] for i in (0, 1))
        rows, self.maps = self.dy.buffer.shape
        self.images = site.images if site.exact_images else 0
        self.rows = 1 if self.images else rows
        self.blocks, self.channels, self.block = self.w.buffer.shape
        self.lanes = min(self.target.lanes, self.block)
        self.width = self._channels_of_a_tile()
        self.row_sizes = row_tiles(self.target, self.rows, self.width)
        has_few_rows = 4 * self.rows * FEW_STEPS * self.lanes <= self.target.l1_bytes // 4
        self.part = self._channels_of_a_part(has_few_rows)
        steps = FEW_STEPS if has_few_rows else STEPS
        self.chunks = split(self.blocks, max(1, steps * self.lanes // self.block))
        self.gradients = self.k.scratch("gradients", (self.rows, self.chunks[0] * self.block + LINE))
        self.sums = self.k.scratch("sums", (self.rows, self.part, self.lanes))
        copied = (self.chunks[0], self.part, self.block)
        self.copies = None if has_few_rows else self.k.scratch("weights", copied)

    def _channels_of_a_tile(self) -> int:
        """Of tiles that are equally fast those that load least."""

        def cost(width: int) -> tuple[float, float]:
            sizes = row_tiles(self.target, self.rows, width)
            cycles = tiles_cycles(self.target, self.rows, width)
            return cycles / width, sum(size + width for size in sizes) / width

        most = min(self.channels, self.target.registers)
        return min((w for w in range(1, most + 1) if fits(self.target, RegisterTile(1, w))), key=cost)

    def _channels_of_a_part(self, has_few_rows: bool) -> int:
        """As many as leave enough parts, and whose sums fill half of the first-level cache or a quarter of
        the second at most."""
        held = self.target.l1_bytes // 2 if has_few_rows else self.target.l2_bytes // 4
        parts = PARTS if has_few_rows else max(1, min(PARTS, self.channels // LEAST_CHANNELS))
        return max(1, min(-(-self.channels // parts), held // (4 * self.rows * self.lanes)))

    def build(self) -> Kernel:
        parts = -(-self.channels // self.part)
        with self.k.loop("part", 0, parts, parallel=True) as part:
            if self.images:
                with self.k.loop("n", 0, self.images, parallel=True, images=1) as image:
                    self._parts(part, parts, image)
            else:
                self._parts(part, parts, affine(0))
        return self.k.build()

    def _parts(self, part: Affine, parts: int, row: Affine) -> None:
        """One part of the channels of all rows, which begin with `row`."""

        def body(number: Affine, channels: int) -> None:
            self._part(number, channels, row)

        each_part(self.k, part, parts, self.channels, self.part, body)

    def _part(self, number: Affine, channels: int, row: Affine) -> None:
        """The gradients of some channels."""
        first = number * self.part
        if len(self.chunks) > 1:
            self._clear(channels)

        def chunk(block: Affine, count: int) -> None:
            self._copy(row, block, count)
            self._tiles((block, count), first, channels)

        each_run(self.k, "blocks", self.chunks, chunk)
        self._finish(row, first, channels)

    def _clear(self, channels: int) -> None:
        zero = self.k.constant(0.0, self.lanes)
        with self.k.loop("row", 0, self.rows) as row, self.k.loop("channel", 0, channels) as channel:
            self.sums.store((row, channel, 0), zero)

    def _copy(self, first_row: Affine, first: Affine, count: int) -> None:
        """dy for some blocks, zeros where a block has no map; in dy itself rows may share cache sets."""
        k, lanes = self.k, self.lanes
        with k.loop("row", 0, self.rows) as row, k.loop("block", 0, count) as inside:

            def block(number: Affine, maps: int) -> None:
                for start in range(0, self.block, lanes):
                    valid, place = min(lanes, maps - start), (first_row + row, number * self.block + start)
                    value = self.dy.load(place, lanes, valid) if valid > 0 else k.constant(0.0, lanes)
                    self.gradients.store((row, inside * self.block + start), value)

            each_part(k, first + inside, self.blocks, self.maps, self.block, block)

    def _tiles(self, blocks: _Range, first: Affine, channels: int) -> None:
        """Add the products of some blocks to the sums of all channels. Gradients of few rows stay in the
        first-level cache, of many rows those of a tile."""

        def rows(body: Callable[[Affine, int], None]) -> None:
            each_run(self.k, "rows", self.row_sizes, body)

        def columns(body: Callable[[Affine, int], None]) -> None:
            each_run(self.k, "tile", split(channels, self.width), body)

        def tile(*place: _Range) -> None:
            self._tile(blocks, first, *place)

        if self.copies is None:
            columns(lambda k, width: rows(lambda n, height: tile((n, height), (k, width))))
            return
        self._copy_weights(self.copies, blocks, first, channels)
        rows(lambda n, height: columns(lambda k, width: tile((n, height), (k, width))))

    def _copy_weights(self, copies: BufferHandle, blocks: _Range, first: Affine, channels: int) -> None:
        """Weights that several tiles of rows read: those of different blocks may share cache sets."""
        k, (block, count) = self.k, blocks
        with k.once_or_loop("block", count) as inside, k.loop("channel", 0, channels) as channel:
            for start in range(0, self.block, self.lanes):
                value = self.w.load((block + inside, first + channel, start), self.lanes)
                copies.store((inside, channel, start), value)

    def _weights(
        self, place: tuple[Affine, Affine], first: Affine, channel: Affine, start: int, count: int
    ) -> Vec:
        """A vector of weights of a block, given by its number and that inside the chunk of `count` blocks;
        what the next chunk reads there is asked for."""
        block, inside = place
        if self.copies is not None:
            return self.copies.load((inside, channel, start), self.lanes)
        if start % LINE == 0:
            self.w.prefetch((block + count, first + channel, start))
        return self.w.load((block, first + channel, start), self.lanes)

    def _tile(self, blocks: _Range, first: Affine, rows: _Range, channels: _Range) -> None:
        """Add the products of some blocks to the sums of one tile."""
        k, (row, height), (channel, width), (block, count) = self.k, rows, channels, blocks
        acc = k.register("acc", self.lanes, (height, width))
        with k.once_or_loop("block", count) as inside:
            for start in range(0, self.block, self.lanes):
                place = (block + inside, inside)
                weights = [self._weights(place, first, channel + j, start, count) for j in range(width)]
                for i in range(height):
                    gradient = self.gradients.load((row + i, inside * self.block + start), self.lanes)
                    for j, weight in enumerate(weights):
                        acc[i, j] = k.fma(gradient, weight, acc[i, j])
        for i in range(height):
            for j in range(width):
                where, total = (row + i, channel + j, 0), acc[i, j]
                if len(self.chunks) > 1:
                    total = total + self.sums.load(where, self.lanes)
                self.sums.store(where, total)

    def _finish(self, first_row: Affine, first: Affine, channels: int) -> None:
        """Add up the lanes of each sum, and hand the gradients to the epilogue."""
        k, lanes = self.k, self.lanes
        epilogue = Epilogue(k, self.region, self.arguments)
        with k.loop("row", 0, self.rows) as row:

            def finish(start: Affine, count: int) -> None:
                sums = [self.sums.load((row, start + j, 0), lanes) for j in range(count)]
                epilogue.finish({point(first_row + row, first + start): k.reduce_each("add", sums)}, count)

            vectors(k, channels, lanes, finish, unroll=1)
