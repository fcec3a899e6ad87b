"""Dense products: packed weights [blocks,K,B] streamed once past all rows.

For few rows a register tile holds all of them by one block of maps, and memory sets the pace: weights are
asked for ahead of use. For many rows the channels are cut into chunks, whose weights stay in the first-level
cache while tile after tile of rows passes; the sums lie in scratch memory between chunks. Rows in arrays of
the caller, of which there may be fewer, are computed one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.arrays import seen_as_array
from cnnc.backend.kernels.loops import each_run, vectors
from cnnc.backend.kernels.region import Epilogue, Point, Region, point
from cnnc.backend.kernels.site import Site, channel_tiles, declare
from cnnc.backend.kernels.tiles import RegisterTile, fits, split, step_cycles
from cnnc.backend.target import Target
from cnnc.ops.dense import Dense

PREFETCH_BYTES = 2048
"""How far ahead weights are asked for: what arrives while memory answers."""

PARTS = 16
"""Iterations of the parallel nest to aim at."""

FEW_ROWS = 4
"""So many rows of x are read where they lie; more may push each other out of a set of the cache."""

NEAR = 1.1
"""A block for which all rows fit one tile is preferred if it costs at most so many times the best, and of
these the narrowest: there are more of them to share out."""


def dense_vectors(target: Target, rows: int, width: int) -> int:
    """Vectors of a block of maps for products of `rows` rows, `width` vectors in all: two at least, for with
    one each FMA takes a broadcast of its own."""
    most = range(min(2, width), min(width, target.registers // 2) + 1)
    fitting = [v for v in most if fits(target, RegisterTile(1, v))]
    costs = {v: -(-width // v) * tiles_cycles(target, rows, v) for v in fitting}
    best = min(costs, key=lambda v: (costs[v], v))
    at_once = (v for v in costs if len(row_tiles(target, rows, v)) == 1 and costs[v] <= NEAR * costs[best])
    return min(at_once, default=best)


def tiles_cycles(target: Target, rows: int, vectors: int) -> float:
    """Of one step of the reduction over all rows."""
    return sum(step_cycles(target, RegisterTile(size, vectors)) for size in row_tiles(target, rows, vectors))


def row_tiles(target: Target, rows: int, vectors: int) -> tuple[int, ...]:
    """Rows of each tile."""
    fitting = (r for r in range(1, rows + 1) if fits(target, RegisterTile(r, vectors)))
    return split(rows, max(fitting, default=1))


def dense_product(site: Site) -> Kernel:
    """x [N,*S] times w [O,*S], both with the elements of S in the same order."""
    region = Region(site)
    assert isinstance(region.anchor, Dense)
    (rows, maps), block = region.result.type.shape, region.anchor_tensor(1).layout.block
    channels = region.anchor_tensor(0).type.size // rows
    operands = list(site.operands)
    for position, shape in enumerate(((rows, channels), (-(-maps // block), channels, block))):
        number = region.operand(position)
        operands[number] = seen_as_array(operands[number], shape)
    return _Product(replace(site, operands=tuple(operands))).build()


@dataclass(frozen=True)
class _Block:
    """A block of maps: its number, that inside the part, and its vectors as (start, maps)."""

    number: Affine
    inside: Affine
    vectors: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Channels:
    """A chunk of the channels: the first, and how many."""

    first: Affine
    count: int


class _Product:
    """Writes one dense product."""

    def __init__(self, site: Site) -> None:
        self.target, self.region = site.target, Region(site)
        self.k = KernelBuilder(self.region.body.name if self.region.epilogue else site.op.name)
        self.arguments = declare(self.k, site)
        self.x, self.w = (self.arguments.operands[self.region.operand(i)] for i in (0, 1))
        self.images = site.images if site.exact_images else 0
        rows, self.maps = self.region.result.type.shape
        self.rows = 1 if self.images else rows
        self.blocks, self.channels, self.block = self.w.buffer.shape
        self.lanes = min(self.target.lanes, self.block)
        vectors = len(channel_tiles(min(self.block, self.maps), self.lanes))
        self.tiles = row_tiles(self.target, self.rows, vectors)
        self.part = max(1, self.blocks // PARTS)

    def build(self) -> Kernel:
        parts = -(-self.blocks // self.part)
        with self.k.loop("part", 0, parts, parallel=True) as part:
            if self.images:
                with self.k.loop("n", 0, self.images, parallel=True, images=1) as image:
                    self._at_once(part, image)
            elif self.rows <= FEW_ROWS:
                self._at_once(part, affine(0))
            else:
                self._in_chunks(part)
        return self.k.build()

    def _each_block(self, part: Affine) -> Iterator[_Block]:
        """The blocks of a part, as loops; the last of all may not be full."""
        whole, rest = divmod(self.maps, self.block)
        first, end = part * self.part, part * self.part + self.part
        is_cut = -(-self.blocks // self.part) * self.part > whole
        if whole:
            with self.k.loop("block", first, (end, whole) if is_cut else end) as block:
                yield _Block(block, block - first, channel_tiles(self.block, self.lanes))
        if rest:
            with self.k.loop("last", (first, whole), (end, whole + 1)) as block:
                yield _Block(block, block - first, channel_tiles(rest, self.lanes))

    def _at_once(self, part: Affine, row: Affine) -> None:
        """All rows, which begin with `row`, in one tile, all channels in one loop."""
        for block in self._each_block(part):
            totals = self._tile(block, row, self.rows, _Channels(affine(0), self.channels))
            self._finish(block, row, totals)

    def _in_chunks(self, part: Affine) -> None:
        """Tile by tile of rows, chunk by chunk of channels."""
        sizes = split(self.channels, self._longest_chunk())
        sums = self.k.scratch("sums", (self.part, self.rows, self.block))
        copies = self.k.scratch("copies", (self.rows, sizes[0] + LINE))
        zero = self.k.constant(0.0, self.lanes)
        for block, row in self._each_row(part):
            for start, _ in block.vectors:
                sums.store((block.inside, row, start), zero)

        def chunk(first: Affine, count: int) -> None:
            self._copy(copies, first, count)
            for block in self._each_block(part):
                self._add(sums, copies, block, _Channels(first, count))

        each_run(self.k, "channels", sizes, chunk)
        for block, row in self._each_row(part):
            totals = [sums.load((block.inside, row, start), self.lanes) for start, _ in block.vectors]
            self._finish(block, row, [totals])

    def _longest_chunk(self) -> int:
        """Channels of which caches hold what is read again: for the next block the copies, in a quarter of
        the second level; for the next tile, if there are several, a block's weights, in half of the first."""
        if len(self.tiles) == 1:
            return max(1, self.target.l2_bytes // (4 * 4 * self.rows))
        return max(1, self.target.l1_bytes // (2 * 4 * self.block))

    def _each_row(self, part: Affine) -> Iterator[tuple[_Block, Affine]]:
        for block in self._each_block(part):
            with self.k.loop("row", 0, self.rows) as row:
                yield block, row

    def _copy(self, copies: BufferHandle, first: Affine, count: int) -> None:
        """The channels of a chunk, close together: in x the rows may lie so that they share cache sets."""
        lanes = self.target.lanes
        with self.k.loop("row", 0, self.rows) as row:

            def copy(start: Affine, valid: int) -> None:
                copies.store((row, start), self.x.load((row, first + start), lanes, valid), valid)

            vectors(self.k, count, lanes, copy)

    def _add(self, sums: BufferHandle, copies: BufferHandle, block: _Block, channels: _Channels) -> None:
        """Add the products of a chunk to the sums of a block."""

        def tile(row: Affine, rows: int) -> None:
            totals = self._tile(block, row, rows, channels, copies)
            for i, line in enumerate(totals):
                for (start, _), total in zip(block.vectors, line, strict=True):
                    place = (block.inside, row + i, start)
                    sums.store(place, total + sums.load(place, self.lanes))

        each_run(self.k, "tile", self.tiles, tile)

    def _tile(
        self, block: _Block, row: Affine, rows: int, channels: _Channels, copies: BufferHandle | None = None
    ) -> list[list[Vec]]:
        """Some rows by a block of maps, summed over a chunk of channels that may have been copied."""
        k, count = self.k, len(block.vectors)
        acc = k.register("acc", self.lanes, (rows, count))
        ahead = PREFETCH_BYTES // (4 * self.block)

        def step(channel: Affine) -> None:
            place = channels.first + channel
            weights = [self.w.load((block.number, place, start), self.lanes) for start, _ in block.vectors]
            following = (block.number + 1, place) if len(self.tiles) > 1 else (block.number, place + ahead)
            for start in range(0, self.block, LINE):
                self.w.prefetch((*following, start))
            for i in range(rows):
                source, c = (self.x, place) if copies is None else (copies, channel)
                value = source.splat((row + i, c), self.lanes)
                for v, weight in enumerate(weights):
                    acc[i, v] = k.fma(value, weight, acc[i, v])

        k.unrolled("c", channels.count, max(1, LINE // self.block), step)
        return [[acc[i, v] for v in range(count)] for i in range(rows)]

    def _finish(self, block: _Block, row: Affine, totals: Sequence[Sequence[Vec]]) -> None:
        """Hand the sums of some rows and a block to the epilogue."""
        epilogue = Epilogue(self.k, self.region, self.arguments)
        for v, (start, count) in enumerate(block.vectors):
            map = block.number * self.block + start
            values: dict[Point, Vec] = {point(row + i, map): line[v] for i, line in enumerate(totals)}
            epilogue.finish(values, count)
