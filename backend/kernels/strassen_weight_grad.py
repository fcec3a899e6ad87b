"""Weight gradients of convolutions of one tap by Strassen's method: sums, seven products, four quarters.

C = A B, A being the source, channels by pixels, and B dy, pixels by maps (ops/strassen.py has the
formulas). An iteration goes over the pixels of the upper half and their partners in the lower half a chunk at
a time. It writes S1 to S4 and T1 to T4 of the chunk to scratch memory; then register tiles of channels by vectors of
maps add the chunk's share to each of the seven products, which wait in scratch memory. What they come to
makes the four quarters of the result. strassen_weight_grad_parts.py says how the work is divided.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.arrays import as_arrays
from cnnc.backend.kernels.fetch import LINE, apart
from cnnc.backend.kernels.loops import each_run, vectors
from cnnc.backend.kernels.prologue import Loader
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.strassen_blocks import halves_lanes
from cnnc.backend.kernels.strassen_weight_grad_parts import GIVEN, SUMS, Parts, Work, choose_parts
from cnnc.ops.partial import parts_of
from cnnc.ops.strassen import PRODUCTS, StrassenWeightGrad

UNROLL = 2
"""Pairs of one turn of the innermost loop."""

Quarter = tuple[int, int]
"""Whether of the lower half of the pixels, and whether of the second half of channels or maps."""

Factor = Quarter | int
"""A quarter of a side, or the number of one of its sums."""

QUARTERS: tuple[Quarter, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))

FACTORS: tuple[tuple[Factor, Factor], ...] = (
    *(((0, 0), (0, 0)), ((1, 0), (1, 0)), (1, 1), (2, 2)),
    *(((1, 1), 3), (0, 0), (3, (1, 1))),
)
"""Of the products in their order: of the source, whose columns are pixels, and of dy, whose rows are."""


def strassen_weight_grad(site: Site) -> Kernel:
    """dw [O/B,1,1,I,B] of dy [N,H,W,O] and x [N,H,W,I]; of groups of images with one more axis in front."""
    region, block = Region(site), site.results[0].layout.block
    dy, x = region.anchor_tensor(0), region.anchor_tensor(1)
    assert isinstance(region.anchor, StrassenWeightGrad)
    strips = parts_of(region.anchor)
    pixels = dy.type.size // dy.shape[1] // strips
    weights = strips, -(-dy.shape[1] // block), x.shape[1], block
    seen = {region.operand(i): (strips, pixels, t.shape[1]) for i, t in enumerate((dy, x))}
    return _WeightGrad(as_arrays(site, weights, seen), block).build()


@dataclass(frozen=True)
class _Part:
    """What one iteration computes: a strip, and of both halves the first channel and the first map."""

    strip: Affine
    channel: Affine
    map: Affine


@dataclass(frozen=True)
class _Chunk:
    """Pairs of pixels: the first, and how many pixels of the upper and of the lower half."""

    first: Affine
    upper: int
    lower: int


@dataclass(frozen=True)
class _Side:
    """The source or dy: where it comes from, the first of its channels in a part, the channels of a half and
    of a part, and scratch memory for sums, behind which stand copies of quarters if there are any."""

    loader: Loader
    strip: Affine
    channel: Affine
    half: int
    size: int
    lanes: int
    pairs: int
    sums: Callable[[Vec, Vec, Vec, Vec], tuple[Vec, ...]]
    scratch: BufferHandle

    @property
    def is_copied(self) -> bool:
        return self.scratch.buffer.shape[0] > SUMS

    def prepare(self, k: KernelBuilder, chunk: _Chunk) -> None:
        """Write the sums of a chunk."""
        with k.loop("pair", 0, chunk.lower) as pair:
            self._pair(k, chunk, pair, is_whole=True)
        if chunk.lower < chunk.upper:
            self._pair(k, chunk, affine(chunk.lower), is_whole=False)

    def _pair(self, k: KernelBuilder, chunk: _Chunk, pair: Affine, is_whole: bool) -> None:
        """The sums of a pair of pixels; a partner that is not there is zero."""
        lanes, zero = self.lanes, k.constant(0.0, self.lanes)

        def add(start: Affine, count: int) -> None:
            loads = [self.loader.at(self._channel(second) + start, lanes, count) for second in range(2)]

            def load(lower: int, second: int) -> Vec:
                if lower and not is_whole:
                    return zero
                place = (*self._pixel(chunk, pair, lower), self._channel(second) + start)
                return loads[second](place)

            quarters = {quarter: load(*quarter) for quarter in QUARTERS}
            copies = [quarters[each] for each in GIVEN] if self.is_copied else []
            for number, value in enumerate((*self.sums(*quarters.values()), *copies)):
                self.scratch.store((number, pair, start), value, count)

        vectors(k, self.size, lanes, add)

    def _at(self, factor: Factor, chunk: _Chunk, pair: Affine, inside: Affine) -> _Place:
        if isinstance(factor, int):
            return self.scratch, (affine(factor), pair, inside)
        if self.is_copied:
            return self.scratch, (affine(SUMS + GIVEN.index(factor)), pair, inside)
        lower, second = factor
        return self.loader.handle, (*self._pixel(chunk, pair, lower), self._channel(second) + inside)

    def splat(self, factor: Factor, chunk: _Chunk, pair: Affine, inside: Affine, lanes: int) -> Vec:
        """The element of a factor for a pair of the chunk and a channel of the part."""
        handle, place = self._at(factor, chunk, pair, inside)
        return handle.splat(place, lanes)

    def load(self, factor: Factor, chunk: _Chunk, pair: Affine, inside: Affine, lanes: int) -> Vec:
        """A vector of them."""
        handle, place = self._at(factor, chunk, pair, inside)
        return handle.load(place, lanes)

    def prefetch(self, quarter: Quarter, chunk: _Chunk, pair: Affine, inside: Affine, count: int) -> None:
        """Ask for some channels of a pixel of the next chunk."""
        lower, second = quarter
        pixel = self._pixel(chunk, pair + chunk.upper, lower)
        for line in range(0, count, LINE):
            self.loader.handle.prefetch((*pixel, self._channel(second) + inside + line))

    def _pixel(self, chunk: _Chunk, pair: Affine, lower: int) -> tuple[Affine, Affine]:
        return self.strip, chunk.first + pair + lower * self.pairs

    def _channel(self, second: int) -> Affine:
        return self.channel + second * self.half


@dataclass(frozen=True)
class _Tile:
    """A register tile of `rows` channels by `width` vectors of maps, from a channel and a map of the part on;
    `asks` says of which sides it asks for what the next chunk will read."""

    channel: Affine
    map: Affine
    rows: int
    width: int
    asks: tuple[bool, bool]


_Place = tuple[BufferHandle, tuple[Affine, ...]]
"""An element of a buffer."""


def _left(q11: Vec, q21: Vec, q12: Vec, q22: Vec) -> tuple[Vec, ...]:
    """S1 to S4; the source's columns are pixels, so its quarters come by columns."""
    s1 = q21 + q22
    s2 = s1 - q11
    return s1, s2, q11 - q21, q12 - s2


def _right(q11: Vec, q12: Vec, q21: Vec, q22: Vec) -> tuple[Vec, ...]:
    """T1 to T4."""
    t1 = q12 - q11
    t2 = q22 - t1
    return t1, t2, q22 - q12, q21 - t2


class _WeightGrad:
    """Writes one weight gradient; tensors are seen as [strips,pixels,channels], the result as
    [strips,blocks,channels,B]."""

    def __init__(self, site: Site, block: int) -> None:
        self.site, self.region, self.block = site, Region(site), block
        self.k = KernelBuilder(self.region.body.name if self.region.epilogue else site.op.name)
        self.arguments = declare(self.k, site)
        dy, x = (self.region.anchor_tensor(i) for i in (0, 1))
        strips, self.pixels, maps = dy.shape
        self.channels, self.maps, self.pairs = x.shape[2] // 2, maps // 2, -(-self.pixels // 2)
        self.lanes = halves_lanes(site.target, self.maps)
        while block % self.lanes:
            self.lanes //= 2
        pitches = x.pitch or x.shape[2], dy.pitch or maps
        made = self.region.has_prologue
        work = Work(strips, self.pairs, self.channels, self.maps, self.lanes, block, made, pitches)
        self.parts: Parts = choose_parts(site.target, work)
        size = PRODUCTS, self.parts.channels, self.parts.maps
        self.products = self.k.scratch("products", size)

    def build(self) -> Kernel:
        parts, (along, across) = self.parts, self.parts.counts
        with ExitStack() as nest:

            def parallel(name: str, extent: int) -> Affine:
                return nest.enter_context(self.k.once_or_loop(name, extent, parallel=True))

            strip = parallel("strip", parts.work.strips)
            part = _Part(
                strip, parallel("channels", along) * parts.channels, parallel("maps", across) * parts.maps
            )
            sides = self._source(part), self._gradients(part)
            if self.is_summed:
                self._clear()
            self._chunks(sides)
            self._finish(part)
        return self.k.build()

    @cached_property
    def is_streamed(self) -> bool:
        """Whether chunks come from memory: then they are asked for a chunk ahead."""
        dy, x = (self.region.anchor_tensor(i).type for i in (0, 1))
        return self.is_summed and dy.nbytes + x.nbytes > self.site.target.l2_bytes

    @property
    def is_summed(self) -> bool:
        """Whether products are sums over several chunks."""
        return len(self.parts.chunks) > 1

    def _source(self, part: _Part) -> _Side:
        size, lanes = self.parts.channels, self.site.lanes(self.parts.channels)
        loader = Loader.of(self.k, self.region, self.arguments, 1)
        scratch = self._scratch("source", 0, size)
        return _Side(loader, part.strip, part.channel, self.channels, size, lanes, self.pairs, _left, scratch)

    def _gradients(self, part: _Part) -> _Side:
        size, lanes = self.parts.maps, self.lanes
        loader = Loader.of(self.k, self.region, self.arguments, 0)
        scratch = self._scratch("gradients", 1, size)
        return _Side(loader, part.strip, part.map, self.maps, size, lanes, self.pairs, _right, scratch)

    def _scratch(self, name: str, side: int, size: int) -> BufferHandle:
        return self.k.scratch(name, (self.parts.kept(side), max(self.parts.chunks), apart(size)))

    def _clear(self) -> None:
        zero = self.k.constant(0.0, self.lanes)
        with (
            self.k.loop("p", 0, PRODUCTS) as p,
            self.k.loop("channel", 0, self.parts.channels) as channel,
            self.k.loop("map", 0, self.parts.maps, self.lanes) as map,
        ):
            self.products.store((p, channel, map), zero)

    def _chunks(self, sides: tuple[_Side, _Side]) -> None:
        """Add the products of all chunks, in their order; of an odd number of pixels the last chunk has one
        less in the lower half."""
        *whole, last = self.parts.chunks
        if self.pixels % 2 == 0:
            whole = [*whole, last]
        each_run(self.k, "chunk", whole, lambda first, size: self._chunk(sides, _Chunk(first, size, size)))
        if self.pixels % 2:
            self._chunk(sides, _Chunk(affine(sum(whole)), last, last - 1))

    def _chunk(self, sides: tuple[_Side, _Side], chunk: _Chunk) -> None:
        for side in sides:
            side.prepare(self.k, chunk)
        for number, factors in enumerate(FACTORS):
            is_halved = any(isinstance(factor, tuple) and factor[0] for factor in factors)
            pairs = chunk.lower if is_halved else chunk.upper
            if pairs or not self.is_summed:
                self._product(number, sides, chunk, pairs)

    def _product(self, number: int, sides: tuple[_Side, _Side], chunk: _Chunk, pairs: int) -> None:
        """Add one product of a chunk to its sums, a register tile at a time. In the first four, tiles of the
        first vectors ask for a quarter of the source, those of the first channels for one of dy."""
        asks = self.is_streamed and number < len(QUARTERS)

        def block(first: Affine, width: int, is_first: bool) -> None:
            def tile(channel: Affine, rows: int, is_top: bool) -> None:
                place = _Tile(channel, first * self.lanes, rows, width, (is_first, is_top))
                self._add(number, place, self._multiply(number, sides, chunk, place, pairs))

            self._each("tile", self.parts.rows(width), asks, tile)

        self._each("block", self.parts.widths, asks, block)

    def _each(
        self, name: str, sizes: Sequence[int], apart: bool, body: Callable[[Affine, int, bool], None]
    ) -> None:
        """`body(start, size, is_first)` for parts one behind the other, with the first `apart` or not."""
        head = tuple(sizes[:1]) if apart else ()
        for size in head:
            body(affine(0), size, True)
        rest = sizes[len(head) :]
        each_run(self.k, name, rest, lambda start, size: body(start + sum(head), size, False))

    def _multiply(
        self, number: int, sides: tuple[_Side, _Side], chunk: _Chunk, tile: _Tile, pairs: int
    ) -> list[Vec]:
        """The products of a tile, channel by channel. With too few accumulators to hide the latency of an
        FMA, even and odd pairs are summed apart."""
        (source, gradients), (left, right), target = sides, FACTORS[number], self.site.target
        lanes, rows, width = self.lanes, tile.rows, tile.width
        ways = 2 if rows * width < target.fma_units * target.fma_latency else 1
        acc = self.k.register("acc", lanes, (ways, rows, width))
        turns = itertools.cycle(range(ways))

        def step(pair: Affine) -> None:
            way = next(turns)
            self._ask(number, sides, chunk, tile, pair)
            values = [gradients.load(right, chunk, pair, tile.map + v * lanes, lanes) for v in range(width)]
            for i in range(rows):
                element = source.splat(left, chunk, pair, tile.channel + i, lanes)
                for v, value in enumerate(values):
                    acc[way, i, v] = self.k.fma(element, value, acc[way, i, v])

        self.k.unrolled("pair", pairs, UNROLL, step)
        places = itertools.product(range(rows), range(width))
        return [acc[0, i, v] + acc[1, i, v] if ways > 1 else acc[0, i, v] for i, v in places]

    def _ask(self, number: int, sides: tuple[_Side, _Side], chunk: _Chunk, tile: _Tile, pair: Affine) -> None:
        """Ask for a quarter of a pair of pixels of the next chunk, as far as the tile reaches."""
        for side, asks, (first, count) in zip(
            sides,
            tile.asks,
            ((tile.channel, tile.rows), (tile.map, tile.width * self.lanes)),
            strict=True,
        ):
            if asks:
                side.prefetch(QUARTERS[number], chunk, pair, first, count)

    def _add(self, number: int, tile: _Tile, totals: Sequence[Vec]) -> None:
        """Add a tile to its product."""
        places = itertools.product(range(tile.rows), range(tile.width))
        for (i, v), total in zip(places, totals, strict=True):
            place = number, tile.channel + i, tile.map + v * self.lanes
            known = total + self.products.load(place, self.lanes) if self.is_summed else total
            self.products.store(place, known)

    def _finish(self, part: _Part) -> None:
        """The four quarters of the result, from the products; behind the last map zeros fill a block."""
        k, parts, lanes = self.k, self.parts, self.lanes
        step = self.block if self.maps % self.block == 0 and parts.maps % self.block == 0 else parts.maps
        with (
            k.loop("channel", 0, parts.channels) as channel,
            k.once_or_loop("group", parts.maps // step) as group,
        ):
            for start in range(0, step, lanes):
                places = [(p, channel, group * step + start) for p in range(PRODUCTS)]
                quarters = _combined([self.products.load(place, lanes) for place in places])
                for (second, right), value in quarters.items():
                    row = part.channel + channel + second * self.channels
                    map = part.map + group * step + (start + right * self.maps)
                    self._store(part.strip, row, map, value)
            self._fill(part, channel)

    def _fill(self, part: _Part, channel: Affine) -> None:
        """Zeros behind the last map."""
        blocks = self.arguments.results[0].buffer.shape[1]
        for start in range(2 * self.maps, blocks * self.block, self.lanes):
            for second, result in itertools.product(range(2), self.arguments.results):
                row = part.channel + channel + second * self.channels
                place = part.strip, affine(start // self.block), row, affine(start % self.block)
                result.store(place, self.k.constant(0.0, self.lanes))

    def _store(self, strip: Affine, row: Affine, map: Affine, value: Vec) -> None:
        """Hand a vector of a channel's gradients to the epilogue; variables count whole blocks."""
        number, inside = divmod(map.constant, self.block)
        blocks = Affine(number, tuple((v, c // self.block) for v, c in map.terms))
        assert all(c % self.block == 0 for _, c in map.terms), f"{map} is not in blocks of {self.block}"
        Epilogue(self.k, self.region, self.arguments).finish(
            {point(strip, blocks, row, inside): value}, self.lanes
        )


def _combined(products: Sequence[Vec]) -> dict[Quarter, Vec]:
    """The quarters of the result: halves of channels, then of maps."""
    p1, p2, p3, p4, p5, p6, p7 = products
    u2 = p1 + p3
    u3 = u2 + p4
    return {(0, 0): p1 + p2, (0, 1): u2 + p6 + p7, (1, 0): u3 + p5, (1, 1): u3 + p6}
