"""The parallel loops at the top of a kernel: which they are, and how many iterations they have."""

from __future__ import annotations

import math

from cnnc.backend.kernel.ir import For, Kernel, Statement


def parallel_nest(kernel: Kernel) -> tuple[tuple[For, ...], tuple[Statement, ...]]:
    """The parallel loops at the top of a kernel, outermost first, and the body inside them."""
    loops: list[For] = []
    body = kernel.body
    while len(body) == 1 and isinstance(body[0], For) and body[0].parallel:
        loops.append(body[0])
        body = body[0].body
    return tuple(loops), body


def trip_count(loop: For) -> int:
    """Iterations of a loop with constant bounds."""
    return max(0, -(-(min(stop.constant for stop in loop.stops) - first_value(loop)) // loop.step))


def first_value(loop: For) -> int:
    """Where a loop with constant bounds begins."""
    return max(start.constant for start in loop.starts)


def has_constant_bounds(loop: For) -> bool:
    """Whether a loop's bounds depend on no variable."""
    return not any(bound.terms for bound in (*loop.starts, *loop.stops))


def iterations(kernel: Kernel, images: int | None = None) -> int:
    """Iterations of the whole parallel nest, for all images or for that many; 1 for a kernel without
    parallel loops."""

    def trips(loop: For) -> int:
        return -(-images // loop.images) if loop.images and images is not None else trip_count(loop)

    return math.prod(map(trips, parallel_nest(kernel)[0]))
