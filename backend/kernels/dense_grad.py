"""Input gradients of dense layers, from the weights as the forward product has them: [blocks,K,B].

dx[n, k] = sum over o of dy[n, o] * w[o, k]. Lanes run along the maps o: a register tile is some rows by some
channels k, whose lanes are added up at the end. Each iteration of the parallel nest computes some channels. It
takes a few blocks of maps at a time, so that weights are read once, in runs, and ahead of use; the sums wait in
scratch memory.
"""

from __future__ import annotations

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import SCRATCH_ALIGNMENT, Affine, Kernel
from cnnc.backend.kernels.arrays import as_arrays
from cnnc.backend.kernels.dense import PREFETCH_BYTES, row_tiles, tiles_cycles
from cnnc.backend.kernels.direct import unpacked_input_grad
from cnnc.backend.kernels.loops import each_run, vectors
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.rows import each_part
from cnnc.backend.kernels.site import Site, channel_tiles, declare
from cnnc.backend.kernels.tiles import RegisterTile, fits, split
from cnnc.ops.dense import DenseInputGrad

LINE = SCRATCH_ALIGNMENT // 4
"""Elements of a cache line."""

PARTS = 16
"""Iterations of the parallel nest to aim at."""

STEPS = 32
"""Vectors of maps that a tile adds up in registers: the sums' loads and stores weigh little beside them."""


def dense_input_grad(site: Site) -> Kernel:
    """dy [N,O] times w [O,*S], w packed in blocks of maps or not at all, in the order of the result."""
    region = Region(site)
    assert isinstance(region.anchor, DenseInputGrad)
    dy, w = region.anchor_tensor(0), region.anchor_tensor(1)
    if w.layout.block == 1:
        return unpacked_input_grad(site)
    rows, channels, block = dy.shape[0], w.type.size // w.shape[0], w.layout.block
    weights = (-(-w.shape[0] // block), channels, block)
    seen = {region.operand(0): dy.shape, region.operand(1): weights}
    return _InputGrad(as_arrays(site, (rows, channels), seen)).build()


class _InputGrad:
    """Writes one input gradient."""

    def __init__(self, site: Site) -> None:
        self.target, self.region = site.target, Region(site)
        self.k = KernelBuilder(self.region.body.name if self.region.epilogue else site.op.name)
        self.arguments = declare(self.k, site)
        self.dy, self.w = (self.arguments.operands[self.region.operand(i)] for i in (0, 1))
        self.rows, self.maps = self.dy.buffer.shape
        self.blocks, self.channels, self.block = self.w.buffer.shape
        self.lanes = min(self.target.lanes, self.block)
        self.part = self._channels_of_a_part()
        most = self._channels_of_a_tile()
        self.row_sizes = row_tiles(self.target, self.rows, most)
        self.most = most
        self.chunks = split(self.blocks, max(1, STEPS * self.lanes // self.block))
        self.gradients = self.k.scratch("gradients", (self.rows, self.chunks[0] * self.block + LINE))
        self.sums = self.k.scratch("sums", (self.rows, self.part, self.lanes))
        self.totals = self.k.scratch("totals", (self.rows, self.part))

    def _channels_of_a_part(self) -> int:
        """As many as leave enough parts, and whose sums fill a quarter of the second-level cache at most."""
        held = self.target.l2_bytes // (4 * 4 * self.rows * self.lanes)
        return max(1, min(-(-self.channels // PARTS), held))

    def _channels_of_a_tile(self) -> int:
        candidates = (c for c in range(1, self.part + 1) if fits(self.target, RegisterTile(1, c)))
        return min(candidates, key=lambda c: (tiles_cycles(self.target, self.rows, c) / c, c))

    def build(self) -> Kernel:
        parts = -(-self.channels // self.part)
        with self.k.loop("part", 0, parts, parallel=True) as part:
            each_part(self.k, part, parts, self.channels, self.part, self._part)
        return self.k.build()

    def _part(self, number: Affine, channels: int) -> None:
        """The gradients of some channels."""
        first, zero = number * self.part, self.k.constant(0.0, self.lanes)
        with self.k.loop("row", 0, self.rows) as row, self.k.loop("channel", 0, channels) as channel:
            self.sums.store((row, channel, 0), zero)

        def chunk(block: Affine, count: int) -> None:
            self._copy(block, count)
            each_run(
                self.k,
                "tile",
                split(channels, self.most),
                lambda channel, width: self._tiles((block, count), first, channel, width),
            )

        each_run(self.k, "blocks", self.chunks, chunk)
        self._finish(first, channels)

    def _copy(self, first: Affine, count: int) -> None:
        """dy for some blocks, zeros where a block has no map; in dy itself rows may share cache sets."""
        k, lanes = self.k, self.lanes
        with k.loop("row", 0, self.rows) as row, k.loop("block", 0, count) as inside:

            def block(number: Affine, maps: int) -> None:
                tiles = dict(channel_tiles(maps, lanes))
                for start in range(0, self.block, lanes):
                    value = k.constant(0.0, lanes)
                    if start in tiles:
                        value = self.dy.load((row, number * self.block + start), lanes, tiles[start])
                    self.gradients.store((row, inside * self.block + start), value)

            each_part(k, first + inside, self.blocks, self.maps, self.block, block)

    def _tiles(self, blocks: tuple[Affine, int], first: Affine, channel: Affine, width: int) -> None:
        """Add the products of some blocks to the sums of `width` channels, tile by tile of rows."""
        each_run(
            self.k,
            "rows",
            self.row_sizes,
            lambda row, height: self._tile(blocks, first, (row, height), (channel, width)),
        )

    def _tile(
        self, blocks: tuple[Affine, int], first: Affine, rows: tuple[Affine, int], channels: tuple[Affine, int]
    ) -> None:
        """Add the products of some blocks to the sums of one tile."""
        k, (row, height), (channel, width), (block, count) = self.k, rows, channels, blocks
        acc = k.register("acc", self.lanes, (height, width))
        ahead = max(1, PREFETCH_BYTES // (4 * self.block))
        with k.once_or_loop("block", count) as inside:
            for start in range(0, self.block, self.lanes):
                weights = [
                    self.w.load((block + inside, first + channel + j, start), self.lanes) for j in range(width)
                ]
                if start % LINE == 0:
                    for j in range(width):
                        self.w.prefetch((block + inside, first + channel + (j + ahead), start))
                for i in range(height):
                    gradient = self.gradients.load((row + i, inside * self.block + start), self.lanes)
                    for j, weight in enumerate(weights):
                        acc[i, j] = k.fma(gradient, weight, acc[i, j])
        for i in range(height):
            for j in range(width):
                place = (row + i, channel + j, 0)
                self.sums.store(place, acc[i, j] + self.sums.load(place, self.lanes))

    def _finish(self, first: Affine, channels: int) -> None:
        """Add up the lanes of each sum, and hand the gradients to the epilogue."""
        k, lanes, totals = self.k, self.target.lanes, self.totals
        epilogue = Epilogue(k, self.region, self.arguments)
        with k.loop("row", 0, self.rows) as row:
            with k.loop("channel", 0, channels) as channel:
                totals.store((row, channel), k.reduce("add", self.sums.load((row, channel, 0), self.lanes)))

            def finish(start: Affine, count: int) -> None:
                value = totals.load((row, start), lanes, count)
                epilogue.finish({point(row, first + start): value}, count)

            vectors(k, channels, lanes, finish)


