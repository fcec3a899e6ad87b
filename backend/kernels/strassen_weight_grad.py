"""Weight gradients of convolutions of one tap by Strassen's method: sums, seven products, four quarters.

C = A B, A being the source, channels by pixels, and B dy, pixels by maps (ops/strassen.py has the formulas).
An iteration goes over the pixels of the upper half and their partners in the lower half a chunk at a time.
It writes the factors of all products for the chunk to scratch memory, sums of quarters and quarters as they
are; then register tiles of channels by vectors of maps add the chunk's share to each product, and these wait
in scratch memory. What they come to makes the four quarters of the result. strassen_weight_grad_parts.py
says how the work is divided.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.arrays import as_arrays
from cnnc.backend.kernels.fetch import apart
from cnnc.backend.kernels.loops import each_run, vectors
from cnnc.backend.kernels.prologue import Loader
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.strassen_blocks import halves_lanes
from cnnc.backend.kernels.strassen_weight_grad_parts import Parts, Work, choose_parts
from cnnc.ops.partial import parts_of
from cnnc.ops.strassen import PRODUCTS, StrassenWeightGrad

UNROLL = 2
"""Pairs of one turn of the innermost loop."""

Quarter = tuple[Affine | int, Affine | int]
"""Whether of the lower half of the pixels, and whether of the second half of channels or maps."""

QUARTERS: tuple[tuple[int, int], ...] = ((0, 0), (0, 1), (1, 0), (1, 1))


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
class _Side:
    """The source or dy: where it comes from, the first of its channels in a part, the channels of a half and
    of a part, what makes its factors of the quarters, and scratch memory for these, by products."""

    loader: Loader
    strip: Affine
    channel: Affine
    half: int
    size: int
    lanes: int
    pixels: int
    factors: Callable[[Vec, Vec, Vec, Vec], tuple[Vec, ...]]
    scratch: BufferHandle

    def prepare(self, k: KernelBuilder, first: Affine, pairs: int) -> None:
        """Write the factors of the chunk of `pairs` that begins with the `first` pair. Of an odd number of
        pixels the last has no partner, and behind the last pair of all there is nothing: zeros."""
        lower, upper = self.pixels // 2, self._upper
        with k.loop("pair", 0, (affine(pairs), lower - first)) as pair:
            self._pair(k, first, pair, rows=2)
        if lower < upper:
            with k.loop("single", (affine(0), lower - first), (affine(pairs), upper - first)) as pair:
                self._pair(k, first, pair, rows=1)
        if upper % pairs:
            with k.loop("none", (affine(0), upper - first), pairs) as pair:
                self._pair(k, first, pair, rows=0)

    def _pair(self, k: KernelBuilder, first: Affine, pair: Affine, rows: int) -> None:
        """The factors of a pair of pixels, of which there are `rows`."""
        lanes, zero = self.lanes, k.constant(0.0, self.lanes)

        def add(start: Affine, count: int) -> None:
            loads = [self.loader.at(self._channel(second) + start, lanes, count) for second in range(2)]

            def load(lower: int, second: int) -> Vec:
                place = *self._pixel(first + pair, lower), self._channel(second) + start
                return loads[second](place) if lower < rows else zero

            quarters = [load(*quarter) for quarter in QUARTERS]
            factors = self.factors(*quarters) if rows else (zero,) * PRODUCTS
            for number, value in enumerate(factors):
                self.scratch.store((number, pair, start), value, count)

        vectors(k, self.size, lanes, add)

    def prefetch(self, quarter: Quarter, pair: Affine, inside: Affine, count: int) -> None:
        """Ask for some channels of a pixel, which need not exist."""
        lower, second = quarter
        for line in range(0, count, LINE):
            place = *self._pixel(pair, lower), self._channel(second) + inside + line
            self.loader.handle.prefetch(place)

    @property
    def _upper(self) -> int:
        """Pixels of the upper half."""
        return -(-self.pixels // 2)

    def _pixel(self, pair: Affine, lower: Affine | int) -> tuple[Affine, Affine]:
        return self.strip, pair + affine(lower) * self._upper

    def _channel(self, second: Affine | int) -> Affine:
        return self.channel + affine(second) * self.half


@dataclass(frozen=True)
class _Tile:
    """A register tile of `rows` channels by `width` vectors of maps, from a channel and a map of the part on;
    `asks` says of which sides it asks for what the next chunk will read."""

    channel: Affine
    map: Affine
    rows: int
    width: int
    asks: tuple[bool, bool]


@dataclass(frozen=True)
class _Share:
    """A chunk's share of a product: the product's number, the first pair of the next chunk, and which quarter
    of that is to be asked for."""

    product: Affine
    next: Affine
    quarter: Quarter | None


def _left(a11: Vec, a21: Vec, a12: Vec, a22: Vec) -> tuple[Vec, ...]:
    """The left factors; the source's rows are pixels, which are columns of A."""
    s1 = a21 + a22
    s2 = s1 - a11
    return a11, a12, s2, a11 - a21, a22, s1, a12 - s2


def _right(b11: Vec, b12: Vec, b21: Vec, b22: Vec) -> tuple[Vec, ...]:
    """The right factors."""
    t1 = b12 - b11
    t2 = b22 - t1
    return b11, b21, t2, b22 - b12, b21 - t2, t1, b22


class _WeightGrad:
    """Writes one weight gradient; tensors are seen as [strips,pixels,channels], the result as
    [strips,blocks,channels,B]."""

    def __init__(self, site: Site, block: int) -> None:
        self.site, self.region, self.block = site, Region(site), block
        self.k = KernelBuilder(self.region.body.name if self.region.epilogue else site.op.name)
        self.arguments = declare(self.k, site)
        dy, x = (self.region.anchor_tensor(i) for i in (0, 1))
        strips, self.pixels, maps = dy.shape
        self.channels, self.maps = x.shape[2] // 2, maps // 2
        self.lanes = halves_lanes(site.target, self.maps)
        while block % self.lanes:
            self.lanes //= 2
        work = Work(strips, -(-self.pixels // 2), self.channels, self.maps, self.lanes, block)
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

    @property
    def is_summed(self) -> bool:
        """Whether products are sums over several chunks."""
        return self.parts.chunks > 1

    @cached_property
    def is_streamed(self) -> bool:
        """Whether chunks come from memory: then they are asked for a chunk ahead."""
        dy, x = (self.region.anchor_tensor(i).type for i in (0, 1))
        return self.is_summed and dy.nbytes + x.nbytes > self.site.target.l2_bytes

    def _source(self, part: _Part) -> _Side:
        size, lanes = self.parts.channels, self.site.lanes(self.parts.channels)
        scratch = self._scratch("source", size)
        loader = Loader.of(self.k, self.region, self.arguments, 1)
        return _Side(
            loader, part.strip, part.channel, self.channels, size, lanes, self.pixels, _left, scratch
        )

    def _gradients(self, part: _Part) -> _Side:
        size, lanes = self.parts.maps, self.lanes
        scratch = self._scratch("gradients", size)
        loader = Loader.of(self.k, self.region, self.arguments, 0)
        return _Side(loader, part.strip, part.map, self.maps, size, lanes, self.pixels, _right, scratch)

    def _scratch(self, name: str, size: int) -> BufferHandle:
        return self.k.scratch(name, (PRODUCTS, self.parts.pairs, apart(size)))

    def _clear(self) -> None:
        zero = self.k.constant(0.0, self.lanes)
        with (
            self.k.loop("p", 0, PRODUCTS) as p,
            self.k.loop("channel", 0, self.parts.channels) as channel,
            self.k.loop("map", 0, self.parts.maps, self.lanes) as map,
        ):
            self.products.store((p, channel, map), zero)

    def _chunks(self, sides: tuple[_Side, _Side]) -> None:
        """Add the products of all chunks, in their order. While the first four are computed, each asks for a
        quarter of the next chunk."""
        k, pairs, asking = self.k, self.parts.pairs, len(QUARTERS) if self.is_streamed else 0
        with k.once_or_loop("chunk", self.parts.chunks) as chunk:
            first = chunk * pairs
            for side in sides:
                side.prepare(k, first, pairs)
            if asking:
                with k.loop("lower", 0, 2) as lower, k.loop("second", 0, 2) as second:
                    self._product(sides, _Share(lower * 2 + second, first + pairs, (lower, second)))
            with k.loop("p", asking, PRODUCTS) as p:
                self._product(sides, _Share(p, first + pairs, None))

    def _product(self, sides: tuple[_Side, _Side], share: _Share) -> None:
        """Add a chunk's share to a product, a register tile at a time. Tiles of the first vectors ask for the
        source, those of the first channels for dy."""

        def block(first: Affine, width: int, is_first: bool) -> None:
            def tile(channel: Affine, rows: int, is_top: bool) -> None:
                place = _Tile(channel, first * self.lanes, rows, width, (is_first, is_top))
                self._add(share, place, self._multiply(sides, share, place))

            self._each("tile", self.parts.rows(width), share, tile)

        self._each("block", self.parts.widths, share, block)

    def _each(
        self, name: str, sizes: Sequence[int], share: _Share, body: Callable[[Affine, int, bool], None]
    ) -> None:
        """`body(start, size, is_first)` for parts one behind the other, the first by itself if it is to ask
        for something."""
        head = tuple(sizes[:1]) if share.quarter else ()
        for size in head:
            body(affine(0), size, True)
        rest = sizes[len(head) :]
        each_run(self.k, name, rest, lambda start, size: body(start + sum(head), size, False))

    def _multiply(self, sides: tuple[_Side, _Side], share: _Share, tile: _Tile) -> list[Vec]:
        """The products of a tile, channel by channel. With too few accumulators to hide the latency of an
        FMA, even and odd pairs are summed apart."""
        (source, gradients), p, target = sides, share.product, self.site.target
        lanes, rows, width = self.lanes, tile.rows, tile.width
        ways = 2 if rows * width < target.fma_units * target.fma_latency else 1
        acc = self.k.register("acc", lanes, (ways, rows, width))
        turns = itertools.cycle(range(ways))

        def step(pair: Affine) -> None:
            way = next(turns)
            self._ask(sides, share, tile, pair)
            places = [(p, pair, tile.map + v * lanes) for v in range(width)]
            values = [gradients.scratch.load(place, lanes) for place in places]
            for i in range(rows):
                element = source.scratch.splat((p, pair, tile.channel + i), lanes)
                for v, value in enumerate(values):
                    acc[way, i, v] = self.k.fma(element, value, acc[way, i, v])

        self.k.unrolled("pair", self.parts.pairs, UNROLL, step)
        each = itertools.product(range(rows), range(width))
        return [acc[0, i, v] + acc[1, i, v] if ways > 1 else acc[0, i, v] for i, v in each]

    def _ask(self, sides: tuple[_Side, _Side], share: _Share, tile: _Tile, pair: Affine) -> None:
        """Ask for a quarter of a pair of pixels of the next chunk, as far as the tile reaches."""
        reaches = (tile.channel, tile.rows), (tile.map, tile.width * self.lanes)
        for side, asks, reach in zip(sides, tile.asks, reaches, strict=True):
            if share.quarter and asks:
                side.prefetch(share.quarter, share.next + pair, *reach)

    def _add(self, share: _Share, tile: _Tile, totals: Sequence[Vec]) -> None:
        """Add a tile to its product."""
        places = itertools.product(range(tile.rows), range(tile.width))
        for (i, v), total in zip(places, totals, strict=True):
            place = share.product, tile.channel + i, tile.map + v * self.lanes
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


def _combined(products: Sequence[Vec]) -> dict[tuple[int, int], Vec]:
    """The quarters of the result: halves of channels, then of maps."""
    p1, p2, p3, p4, p5, p6, p7 = products
    u2 = p1 + p3
    u3 = u2 + p4
    return {(0, 0): p1 + p2, (0, 1): u2 + p6 + p7, (1, 0): u3 + p5, (1, 1): u3 + p6}
