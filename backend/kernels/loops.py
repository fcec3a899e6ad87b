"""Loops that several kernels share: nests, vectors along a dimension, vectors over flat memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernels.site import Site, channel_tiles

CHUNK = 4096
"""Elements of one iteration of a parallel loop over flat memory: 16 KB, half of a first-level cache."""

UNROLL = 4
"""Vectors of one iteration of a serial loop: enough to hide the loop's own instructions."""

Body = Callable[[Affine, int], None]
"""What is done with a vector: its start along the dimension, and how many of its lanes are valid."""

Term = Callable[[Affine, int], Vec]
"""The vector that starts there, of which that many lanes are valid."""

Tiles = Sequence[tuple[int, int]]
"""Vectors side by side: where each starts, and how many of its lanes are valid."""


@contextmanager
def nest(
    k: KernelBuilder, extents: Sequence[int], parallel: bool = False, images: int = 0
) -> Iterator[tuple[Affine, ...]]:
    """Loops over `extents`, one directly inside another; yields their variables. `images` marks the first
    as one over images."""
    marks = (images, *[0] * len(extents))
    with ExitStack() as stack:
        loops = (
            k.loop("i", 0, extent, parallel=parallel, images=mark)
            for extent, mark in zip(extents, marks, strict=False)
        )
        yield tuple(stack.enter_context(loop) for loop in loops)


@contextmanager
def by_images(k: KernelBuilder, site: Site, name: str, extent: int) -> Iterator[Affine]:
    """A parallel loop over 0..extent; where the site asks for one over images, that, and inside it a loop
    over the share of each image. Yields the place in 0..extent."""
    each = extent // site.images if site.images else extent
    with images_apart(k, site, extent) as first:
        if each == 1 and site.images:
            yield first
            return
        with k.loop(name, 0, each, parallel=True) as i:
            yield first + i


@contextmanager
def images_apart(k: KernelBuilder, site: Site, extent: int) -> Iterator[Affine]:
    """A loop over images where the site asks for one. Yields where in 0..extent the image's share begins."""
    if not site.images:
        yield affine(0)
        return
    with k.loop("n", 0, site.images, parallel=True, images=1) as image:
        yield image * (extent // site.images)


def vectors(k: KernelBuilder, extent: int, lanes: int, body: Body, unroll: int = UNROLL) -> None:
    """`body` for the vectors that cover 0..extent, the last of which may have fewer elements."""
    whole, rest = divmod(extent, lanes)
    k.unrolled("j", whole, unroll, lambda i: body(i * lanes, lanes))
    if rest:
        body(affine(whole * lanes), rest)


def parallel_tiles(
    k: KernelBuilder, extent: int, lanes: int, most: int, body: Callable[[Affine, Tiles], None]
) -> None:
    """`body(start, tiles)` for groups of up to `most` vectors that cover 0..extent, in parallel if there
    are several. Must stand directly inside the parallel loops around it."""
    step, whole = most * lanes, extent - extent % (most * lanes)
    if extent <= step:
        body(affine(0), channel_tiles(extent, lanes))
        return
    with k.loop("group", 0, extent, step, parallel=True) as group:
        if whole == extent:
            body(group, channel_tiles(step, lanes))
            return
        with k.loop("full", group, (group + 1, whole - step + 1)) as start:
            body(start, channel_tiles(step, lanes))
        with k.loop("rest", (group, whole), (group + 1, whole + 1)) as start:
            body(start, channel_tiles(extent - whole, lanes))


def each_run(k: KernelBuilder, name: str, sizes: Sequence[int], body: Callable[[Affine, int], None]) -> None:
    """`body(start, size)` for parts of the given sizes, one behind the other: a loop for each run of equal
    sizes."""
    first = 0
    for size, run in itertools.groupby(sizes):
        count = len(list(run))
        with k.once_or_loop(name, count) as number:
            body(number * size + first, size)
        first += count * size


def flat_vectors(k: KernelBuilder, size: int, lanes: int, begin: Callable[[], Body]) -> None:
    """As `vectors`, over a whole buffer: in parallel over chunks if there are several.

    `begin` writes what a chunk needs once and returns the body. The loops behind the first run in the
    last chunk only: a parallel loop must enclose everything.
    """
    if size <= CHUNK:
        vectors(k, size, lanes, begin())
        return
    step, rest = UNROLL * lanes, size % lanes
    unrolled, full = size - size % step, size - rest
    with k.loop("chunk", 0, size, CHUNK, parallel=True) as chunk:
        end, body = chunk + CHUNK, begin()
        with k.loop("i", chunk, (end, unrolled - step + 1), step) as i:
            for start in range(0, step, lanes):
                body(i + start, lanes)
        if unrolled < full:
            with k.loop("i", (chunk, unrolled), (end - lanes + 1, full - lanes + 1), lanes) as i:
                body(i, lanes)
        if rest:
            with k.loop("i", (chunk, full), (end - rest + 1, full + 1)) as i:
                body(i, rest)


def reduce_vectors(
    k: KernelBuilder, extent: int, lanes: int, function: str, initial: float, term: Term
) -> Vec:
    """add, max or min of `term` over the vectors that cover 0..extent, then over lanes; one lane.

    The lanes beyond the last vector's elements count as well: the term must make them harmless.
    """
    total = k.register("total", lanes, (1,), initial)

    def tile(start: Affine, count: int) -> None:
        total[0,] = k.compute(function, total[0,], term(start, count))

    vectors(k, extent, lanes, tile)
    return k.reduce(function, total[0,])


def flat_sum(k: KernelBuilder, size: int, lanes: int, term: Term) -> Vec:
    """The sum of `term` over flat memory, one lane; chunks are totalled apart, which bounds the error."""
    total = k.register("total", lanes, (1,))

    def chunk(first: Affine, extent: int) -> None:
        part = Accumulators(k, lanes, UNROLL)
        vectors(k, extent, lanes, lambda start, count: part.add(term(first + start, count)))
        total[0,] = total[0,] + part.total()

    whole = size - size % CHUNK
    if whole:
        with k.loop("chunk", 0, whole, CHUNK) as first:
            chunk(first, CHUNK)
    if whole < size:
        chunk(affine(whole), size - whole)
    return k.reduce("add", total[0,])


class Accumulators:
    """A sum kept in several registers, used in turn, so that an addition need not wait for the last."""

    def __init__(self, k: KernelBuilder, lanes: int, ways: int) -> None:
        self._tile = k.register("part", lanes, (ways,))
        self._ways = ways
        self._turn = 0

    def add(self, value: Vec) -> None:
        self._tile[self._turn,] = self._tile[self._turn,] + value
        self._turn = (self._turn + 1) % self._ways

    def add_product(self, a: Vec, b: Vec) -> None:
        self._tile[self._turn,] = self._tile[self._turn,].builder.fma(a, b, self._tile[self._turn,])
        self._turn = (self._turn + 1) % self._ways

    def total(self) -> Vec:
        """The sum of the registers, by halves."""
        return halved([self._tile[way,] for way in range(self._ways)])


def halved(parts: Sequence[Vec]) -> Vec:
    """The sum of vectors, by halves."""
    while len(parts) > 1:
        half = (len(parts) + 1) // 2
        sums = [a + b for a, b in zip(parts, parts[half:], strict=False)]
        parts = [*sums, *parts[len(parts) - half : half]]
    return parts[0]
