"""Sums over a batch by channel, for batch normalization, and the scaling of weights that takes its place.

Maps are seen as rows of channels. A parallel iteration sums up one part of the rows, in blocks so small that a
block stays in the second-level cache while its channels are read, a few vectors at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.loops import Accumulators, Tiles, nest, vectors
from cnnc.backend.kernels.site import Site, Tensor, channel_tiles, declare
from cnnc.ops.batch_sums import BatchMoments, BatchNormSums, MergeMoments, row_count
from cnnc.ops.norm import ScaleMaps

MOST_VECTORS = 8
"""Read side by side: so long a stretch of each row that memory is read ahead. The sums that registers cannot hold
are in the first-level cache."""

IN_FLIGHT = 4
"""Sums under way at a time, of each kind: two additions a cycle, four cycles each."""

RUN = 1024
"""Most rows that are added up in one register, a power of two: bounds rounding errors."""

LEAST_RUN = 16
"""Rows of a block at least, however wide they are, a power of two."""

Factors = Callable[[Affine, int], tuple[Vec, Vec]]
"""Of a row and the number of a vector in it: what is summed, and what that is multiplied by for the other sum."""


def batch_moments(site: Site) -> Kernel:
    """Means and sums of squares of each part.

    Welford's update, by blocks of rows: let the rows so far have the mean m and the squares s, and the
    differences of the block's rows from m the sum t and the squares u. With d = t / (all these rows) the
    mean becomes m + d and the squares s + u - t * d. At first m is a row of the part, so that
    differences are small.
    """
    assert isinstance(site.op, BatchMoments)
    k = KernelBuilder(site.op.name)
    rows = _Rows.of(k, site.operands[0], site, site.op.rows)
    arguments = declare(k, site, rows.view, read_back=True)
    (x,), (mean, squares) = arguments.operands, arguments.results
    lanes = rows.lanes
    with rows.parts() as (part, first):

        def begin(start: Affine, count: int) -> None:
            mean.store((part, start), x.load((first, start), lanes, count), count)
            squares.store((part, start), k.constant(0.0, lanes), count)

        def block(row: Affine, height: int) -> None:
            known = k.broadcast(k.index(row - first + height, 1), lanes)
            share = k.compute("div", 1.0, known)

            def group(start: Affine, tiles: Tiles) -> None:
                means = [mean.load((part, start + s), lanes, count) for s, count in tiles]

                def differences(at: Affine, number: int) -> tuple[Vec, Vec]:
                    s, count = tiles[number]
                    difference = x.load((at, start + s), lanes, count) - means[number]
                    return difference, difference

                sums = rows.add_up(row, height, len(tiles), differences)
                for (s, count), old, (total, product) in zip(tiles, means, sums, strict=True):
                    place, step = (part, start + s), total * share
                    mean.store(place, old + step, count)
                    before = squares.load(place, lanes, count)
                    squares.store(place, before + (product - total * step), count)

            rows.groups(group)

        vectors(k, rows.channels, lanes, begin)
        rows.blocks(first, block)
    return k.build()


def batch_norm_sums(site: Site) -> Kernel:
    """Sums of dy and of dy * (x - mean) of each part."""
    assert isinstance(site.op, BatchNormSums)
    k = KernelBuilder(site.op.name)
    rows = _Rows.of(k, site.operands[0], site, site.op.rows)
    arguments = declare(k, site, rows.view, read_back=True)
    (dy, x, mean), results = arguments.operands, arguments.results
    lanes = rows.lanes
    with rows.parts() as (part, first):

        def begin(start: Affine, count: int) -> None:
            for result in results:
                result.store((part, start), k.constant(0.0, lanes), count)

        def block(row: Affine, height: int) -> None:
            def group(start: Affine, tiles: Tiles) -> None:
                means = [mean.load((start + s,), lanes, count) for s, count in tiles]

                def factors(at: Affine, number: int) -> tuple[Vec, Vec]:
                    s, count = tiles[number]
                    place = (at, start + s)
                    return dy.load(place, lanes, count), x.load(place, lanes, count) - means[number]

                for (s, count), sums in zip(tiles, rows.add_up(row, height, len(tiles), factors), strict=True):
                    for result, value in zip(results, sums, strict=True):
                        place = (part, start + s)
                        result.store(place, result.load(place, lanes, count) + value, count)

            rows.groups(group)

        vectors(k, rows.channels, lanes, begin)
        rows.blocks(first, block)
    return k.build()


@dataclass(frozen=True)
class _Rows:
    """A tensor seen as [count, channels], cut into parts of `part` rows and blocks of `block`."""

    k: KernelBuilder
    count: int
    channels: int
    part: int
    block: int
    lanes: int

    @classmethod
    def of(cls, k: KernelBuilder, x: Tensor, site: Site, part: int) -> _Rows:
        """A block of x takes half of the second-level cache at most."""
        channels, block = x.shape[1], LEAST_RUN
        while block < RUN and 2 * block * channels * x.type.numpy.itemsize <= site.target.l2_bytes // 2:
            block *= 2
        while part % block:
            block //= 2
        return cls(k, row_count(x.type), channels, part, block, site.lanes(channels))

    def view(self, tensor: Tensor) -> tuple[int, ...]:
        """The tensor's memory as rows of channels; what is a row or several already stays."""
        return (self.count, self.channels) if tensor.type.rank == 4 else tensor.physical

    @contextmanager
    def parts(self) -> Iterator[tuple[Affine, Affine]]:
        """A parallel loop over the parts: the number and the first row of each."""
        with self.k.loop("part", 0, -(-self.count // self.part), parallel=True) as part:
            yield part, part * self.part

    def blocks(self, first: Affine, body: Callable[[Affine, int], None]) -> None:
        """`body(row, height)` for the blocks of the part that begins with `first`; the last block of all may be
        lower."""
        whole = self.count - self.count % self.block
        if whole:
            stops = first + (self.part - self.block + 1), whole - self.block + 1
            with self.k.loop("row", first, stops, self.block) as row:
                body(row, self.block)
        if whole < self.count:
            with self.k.loop("last", (first, whole), (first + self.part, whole + 1)) as row:
                body(row, self.count - whole)

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
