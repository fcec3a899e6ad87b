"""Sums over a batch by channel, for batch normalization, and the scaling of weights that takes its place.

Maps are seen as rows of channels. A parallel iteration sums up one part of the rows, in blocks so small
that a block stays in the second-level cache while its channels are read, a few vectors at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.loops import Accumulators, Tiles, nest, vectors
from cnnc.backend.kernels.site import Site, Tensor, channel_tiles, declare
from cnnc.ops.batch_sums import BatchMoments, BatchNormSums, MergeMoments, RowParts, row_count
from cnnc.ops.norm import ScaleMaps

MOST_VECTORS = 8
"""Read side by side: so long a stretch of each row that memory is read ahead. The sums that registers
cannot hold are in the first-level cache."""

IN_FLIGHT = 4
"""Sums under way at a time, of each kind: two additions a cycle, four cycles each."""

RUN = 1024
"""Most rows that are added up in one register, a power of two: bounds rounding errors."""

LEAST_RUN = 16
"""Rows of a block at least, however wide they are, a power of two."""

Factors = Callable[[Affine, int], tuple[Vec, Vec]]
"""Of a row and the number of a vector in it: what is summed, and what that is multiplied by for the other
sum."""


@dataclass(frozen=True)
class _Part:
    """A part's place among the results, and its first row."""

    place: tuple[Affine, Affine]
    first: Affine


Begin = Callable[[_Part, Affine, int], None]
"""Of a part, and the start and length of a vector of channels."""

Block = Callable[[_Part, Affine, int], None]
"""Of a part, and the first row and the height of a block."""


def batch_moments(site: Site) -> Kernel:
    """Means and sums of squares of each part."""
    assert isinstance(site.op, BatchMoments)
    k = KernelBuilder(site.op.name)
    x = site.operands[0]
    rows = _Rows.of(k, site, RowParts(1, row_count(x.type), site.op.rows))
    arguments = declare(k, site, rows.view, read_back=(0, 1))
    moments = _Moments(k, rows, *arguments.operands, *arguments.results)
    rows.visit(moments.begin, moments.block)
    return k.build()


def batch_norm_sums(site: Site) -> Kernel:
    """Sums of dy and of dy * (x - mean) of each part."""
    assert isinstance(site.op, BatchNormSums)
    k = KernelBuilder(site.op.name)
    rows = _Rows.of(k, site, site.op.cut(site.operands[0].type))
    arguments = declare(k, site, rows.view, read_back=(0, 1))
    sums = _Sums(k, rows, *arguments.operands, *arguments.results)
    rows.visit(sums.begin, sums.block)
    return k.build()


@dataclass(frozen=True)
class _Moments:
    """Welford's update, by blocks of rows: let the rows so far have the mean m and the squares s, and the
    differences of the block's rows from m the sum t and the squares u. With d = t / (all these rows) the
    mean becomes m + d and the squares s + u - t * d. At first m is the mean of the part's first few rows,
    so that differences are small.
    """

    k: KernelBuilder
    rows: _Rows
    x: BufferHandle
    mean: BufferHandle
    squares: BufferHandle

    def begin(self, part: _Part, start: Affine, count: int) -> None:
        lanes, few = self.rows.lanes, self.rows.least
        total = self.k.register("total", lanes, (1,))
        with self.k.loop("i", 0, few) as i:
            total[0,] = total[0,] + self.x.load((part.first + i, start), lanes, count)
        self.mean.store((*part.place, start), total[0,] * (1.0 / few), count)
        self.squares.store((*part.place, start), self.k.constant(0.0, lanes), count)

    def block(self, part: _Part, row: Affine, height: int) -> None:
        known = self.k.broadcast(self.k.index(row - part.first + height, 1), self.rows.lanes)
        share = self.k.compute("div", 1.0, known)
        self.rows.groups(lambda start, tiles: self._group(part, row, height, share, start, tiles))

    def _group(self, part: _Part, row: Affine, height: int, share: Vec, start: Affine, tiles: Tiles) -> None:
        lanes = self.rows.lanes
        means = [self.mean.load((*part.place, start + s), lanes, count) for s, count in tiles]

        def differences(at: Affine, number: int) -> tuple[Vec, Vec]:
            s, count = tiles[number]
            difference = self.x.load((at, start + s), lanes, count) - means[number]
            return difference, difference

        sums = self.rows.add_up(row, height, len(tiles), differences)
        for (s, count), old, (total, product) in zip(tiles, means, sums, strict=True):
            place, step = (*part.place, start + s), total * share
            self.mean.store(place, old + step, count)
            before = self.squares.load(place, lanes, count)
            self.squares.store(place, before + (product - total * step), count)


@dataclass(frozen=True)
class _Sums:
    """The two sums of a part, added to block by block."""

    k: KernelBuilder
    rows: _Rows
    dy: BufferHandle
    x: BufferHandle
    mean: BufferHandle
    first: BufferHandle
    second: BufferHandle

    def begin(self, part: _Part, start: Affine, count: int) -> None:
        for result in (self.first, self.second):
            result.store((*part.place, start), self.k.constant(0.0, self.rows.lanes), count)

    def block(self, part: _Part, row: Affine, height: int) -> None:
        self.rows.groups(lambda start, tiles: self._group(part, row, height, start, tiles))

    def _group(self, part: _Part, row: Affine, height: int, start: Affine, tiles: Tiles) -> None:
        lanes = self.rows.lanes
        means = [self.mean.load((start + s,), lanes, count) for s, count in tiles]

        def factors(at: Affine, number: int) -> tuple[Vec, Vec]:
            s, count = tiles[number]
            place = (at, start + s)
            return self.dy.load(place, lanes, count), self.x.load(place, lanes, count) - means[number]

        sums = self.rows.add_up(row, height, len(tiles), factors)
        for (s, count), pair in zip(tiles, sums, strict=True):
            place = (*part.place, start + s)
            for result, value in zip((self.first, self.second), pair, strict=True):
                result.store(place, result.load(place, lanes, count) + value, count)


@dataclass(frozen=True)
class _Rows:
    """A tensor seen as [count, channels]: rows, cut into parts as `cut` says, and those into blocks of
    `block`."""

    k: KernelBuilder
    site: Site
    cut: RowParts
    channels: int
    block: int

    @classmethod
    def of(cls, k: KernelBuilder, site: Site, cut: RowParts) -> _Rows:
        """A block of x takes half of the second-level cache at most."""
        x, block = site.operands[0], LEAST_RUN
        channels = x.shape[1]
        while block < RUN and 2 * block * channels * x.type.numpy.itemsize <= site.target.l2_bytes // 2:
            block *= 2
        while cut.part % block:
            block //= 2
        return cls(k, site, cut, channels, block)

    @property
    def lanes(self) -> int:
        return self.site.lanes(self.channels)

    @property
    def least(self) -> int:
        """Rows that every part has, the last as well, and no more than a few."""
        return min(LEAST_RUN, self.cut.rows, (self.cut.rows - 1) % self.cut.part + 1)

    def view(self, tensor: Tensor) -> tuple[int, ...]:
        """The tensor's memory as rows of channels; of a result as rows for each part of each image."""
        if any(tensor is result for result in self.site.results):
            return self.cut.images, self.cut.parts, self.channels
        return (self.cut.images * self.cut.rows, self.channels) if tensor.type.rank == 4 else tensor.physical

    def visit(self, begin: Begin, block: Block) -> None:
        """In parallel for each part: `begin` for every vector of its channels, then `block` for every block
        of its rows, in order."""
        k = self.k
        with (
            k.once_or_loop("n", self.cut.images, parallel=True) as image,
            k.loop("part", 0, self.cut.parts, parallel=True) as number,
        ):
            start = image * self.cut.rows
            part = _Part((image, number), start + number * self.cut.part)
            vectors(k, self.channels, self.lanes, lambda first, count: begin(part, first, count))
            self.blocks(start, part.first, lambda row, height: block(part, row, height))

    def blocks(self, start: Affine, first: Affine, body: Callable[[Affine, int], None]) -> None:
        """`body(row, height)` for the blocks of the part that begins with row `first` of an image that
        begins with row `start`, whose last block may be lower."""
        whole = self.cut.rows - self.cut.rows % self.block
        if whole:
            stops = first + (self.cut.part - self.block + 1), start + (whole - self.block + 1)
            with self.k.loop("row", first, stops, self.block) as row:
                body(row, self.block)
        if whole < self.cut.rows:
            stops = first + self.cut.part, start + (whole + 1)
            with self.k.loop("last", (first, start + whole), stops) as row:
                body(row, self.cut.rows - whole)

    def groups(self, body: Callable[[Affine, Tiles], None]) -> None:
        """`body(start, tiles)` for groups of vectors that cover the channels."""
        step = MOST_VECTORS * self.lanes
        whole = self.channels - self.channels % step
        if whole == step:
            body(affine(0), channel_tiles(step, self.lanes))
        elif whole:
            with self.k.loop("group", 0, whole, step) as start:
                body(start, channel_tiles(step, self.lanes))
        if whole < self.channels:
            body(affine(whole), channel_tiles(self.channels - whole, self.lanes))

    def add_up(self, first: Affine, height: int, width: int, factors: Factors) -> list[tuple[Vec, Vec]]:
        """The two sums over `height` rows from `first` on, for `width` vectors side by side."""
        ways = min(height, max(1, IN_FLIGHT // width))
        sums = [Accumulators(self.k, self.lanes, ways) for _ in range(width)]
        products = [Accumulators(self.k, self.lanes, ways) for _ in range(width)]

        def row(i: Affine) -> None:
            for number in range(width):
                a, b = factors(first + i, number)
                sums[number].add(a)
                products[number].add_product(a, b)

        self.k.unrolled("i", height, ways, row)
        return [(s.total(), p.total()) for s, p in zip(sums, products, strict=True)]


def merge_moments(site: Site) -> Kernel:
    """Mean and variance of all rows from the moments of the parts; see the op."""
    op, means = site.op, site.operands[0]
    assert isinstance(op, MergeMoments)
    k = KernelBuilder(op.name)
    arguments = declare(k, site)
    (mean, squares), results = arguments.operands, arguments.results
    (parts, channels), lanes = means.shape, site.lanes(means.shape[1])

    def over_parts(term: Callable[[Affine, float], Vec]) -> Vec:
        """The sum of a term of each part and its number of rows."""
        total = k.register("total", lanes, (1,))
        if parts > 1:
            with k.loop("part", 0, parts - 1) as part:
                total[0,] = total[0,] + term(part, float(op.rows))
        return total[0,] + term(affine(parts - 1), float(op.last))

    def vector(start: Affine, count: int) -> None:
        middle = mean.load((0, start), lanes, count)

        def difference(part: Affine, rows: float) -> Vec:
            return (mean.load((part, start), lanes, count) - middle) * rows

        result = middle + over_parts(difference) * (1.0 / op.count)

        def square(part: Affine, rows: float) -> Vec:
            from_mean = mean.load((part, start), lanes, count) - result
            return k.fma(from_mean * rows, from_mean, squares.load((part, start), lanes, count))

        variance = over_parts(square) * (1.0 / op.count)
        for handle, value in zip(results, (result, variance), strict=True):
            handle.store((start,), value, count)

    vectors(k, channels, lanes, vector, unroll=1)
    return k.build()


def scale_maps(site: Site) -> Kernel:
    """Every slice of the weight times its scale, in whatever layout the weight lies."""
    op, w = site.op, site.operands[0]
    assert isinstance(op, ScaleMaps)
    k = KernelBuilder(op.name)
    arguments = declare(k, site)
    (source, scale), (result,) = arguments.operands, arguments.results
    *outer, inner = w.physical
    place, lanes = w.layout.axes.index(op.axis), site.lanes(inner)

    def scaled(at: Sequence[Affine], count: int, factor: Vec) -> None:
        result.store(at, source.load(at, lanes, count) * factor, count)

    if w.inner_axis != op.axis:
        with nest(k, outer, parallel=True) as loops:
            factor = scale.splat((loops[place],), lanes)
            vectors(k, inner, lanes, lambda start, count: scaled((*loops, start), count, factor))
        return k.build()
    blocks = outer.pop(place) if w.layout.block > 1 else 1
    with nest(k, outer, parallel=True) as loops:

        def block(number: Affine, maps: int) -> None:
            """The maps of one block, and what fills it up, which is zero."""
            at = (*loops[:place], number, *loops[place:]) if w.layout.block > 1 else loops
            for start, count in channel_tiles(inner, lanes):
                known = min(count, maps - start)
                first = number * inner + start
                factor = scale.load((first,), lanes, known) if known > 0 else k.constant(0.0, lanes)
                scaled((*at, affine(start)), count, factor)

        with k.loop("block", 0, w.shape[op.axis] // inner) as number:
            block(number, inner)
        if w.shape[op.axis] % inner:
            block(affine(blocks - 1), w.shape[op.axis] % inner)
    return k.build()
