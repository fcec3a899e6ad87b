"""Loops that several kernels share: nests, vectors along a dimension, vectors over flat memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, affine

CHUNK = 4096
"""Elements of one iteration of a parallel loop over flat memory: 16 KB, half of a first-level cache."""

UNROLL = 4
"""Vectors of one iteration of a serial loop: enough to hide the loop's own instructions."""

Body = Callable[[Affine, int], None]
"""What is done with a vector: its start along the dimension, and how many of its lanes are valid."""


@contextmanager
def nest(k: KernelBuilder, extents: Sequence[int], parallel: bool = False) -> Iterator[tuple[Affine, ...]]:
    """Loops over `extents`, one directly inside another; yields their variables."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(k.loop("i", 0, extent, parallel=parallel)) for extent in extents)


def vectors(k: KernelBuilder, extent: int, lanes: int, body: Body, unroll: int = UNROLL) -> None:
    """`body` for the vectors that cover 0..extent, the last of which may have fewer elements."""
    whole, rest = divmod(extent, lanes)
    k.unrolled("j", whole, unroll, lambda i: body(i * lanes, lanes))
    if rest:
        body(affine(whole * lanes), rest)


def flat_vectors(k: KernelBuilder, size: int, lanes: int, body: Body) -> None:
    """As `vectors`, over a whole buffer: in parallel over chunks if there are several.

    The loops behind the first run in the last chunk only: a parallel loop must enclose everything.
    """
    if size <= CHUNK:
        vectors(k, size, lanes, body)
        return
    step, rest = UNROLL * lanes, size % lanes
    unrolled, full = size - size % step, size - rest
    with k.loop("chunk", 0, size, CHUNK, parallel=True) as chunk:
        end = chunk + CHUNK
        with k.loop("i", chunk, (end, unrolled - step + 1), step) as i:
            for start in range(0, step, lanes):
                body(i + start, lanes)
        if unrolled < full:
            with k.loop("i", (chunk, unrolled), (end - lanes + 1, full - lanes + 1), lanes) as i:
                body(i, lanes)
        if rest:
            with k.loop("i", (chunk, full), (end - rest + 1, full + 1)) as i:
                body(i, rest)
