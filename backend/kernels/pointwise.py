"""Pixels of contractions of one tap as rows: they may be joined and cut at will."""

from __future__ import annotations

from dataclasses import replace

from cnnc.backend.kernels.contraction import Contraction, as_images
from cnnc.backend.kernels.region import Region
from cnnc.backend.kernels.site import Site
from cnnc.backend.kernels.tiles import row_cycles
from cnnc.backend.target import Target
from cnnc.passes.bands import MOST_PIXELS
from cnnc.passes.fuse_prologues import LEAST_ROWS


def as_rows(site: Site, shape: Contraction) -> tuple[Site, Contraction]:
    """A contraction without a pool, and the site with its pixel tensors, by rows that suit register tiles."""
    region = Region(site)
    weights, rank = region.operand(1), region.result.type.rank
    vectors = max(1, site.operands[weights].layout.block // site.lanes(shape.maps))
    if region.has_prologue:
        shape = cut_rows(shape, site.target, vectors)
    else:
        band = shape.result[0] // region.bands.parts if region.bands else 0
        shape = fold_rows(shape, site.target, vectors, band)

    def is_pixel_tensor(number: int) -> bool:
        is_source = number == region.operand(0)
        return number != weights and (is_source or site.operands[number].type.rank == rank)

    return as_images(site, shape, is_pixel_tensor, region.summed), shape


def fold_rows(shape: Contraction, target: Target, vectors: int, band: int = 0) -> Contraction:
    """Join rows of a pointwise contraction into longer ones, if register tiles fit those better.

    The rows stay a divisor of what they were, so that they still spread over the threads, and with a `band`
    of rows that of it.
    """
    height, width = shape.result
    factors = [
        f for f in range(1, height + 1) if ((band or height) % f == 0 and width * f <= MOST_PIXELS) or f == 1
    ]
    best = min(factors, key=lambda f: (row_cycles(target, width * f, vectors) * (height // f), f))
    size = (height // best, width * best)
    return replace(shape, source=size, result=size)


def cut_rows(shape: Contraction, target: Target, vectors: int) -> Contraction:
    """The pixels of a pointwise contraction as rows of any length that divides their number: of those that
    register tiles fit best the longest that fills a quarter of the second-level cache, beside the weights and
    what is read ahead."""
    pixels = shape.result[0] * shape.result[1]
    limits = MOST_PIXELS, target.l2_bytes // (4 * 4 * shape.channels), shape.batch * pixels // LEAST_ROWS
    widths = [w for w in range(1, max(1, min(limits)) + 1) if pixels % w == 0]
    best = min(widths, key=lambda w: (row_cycles(target, w, vectors) * (pixels // w), -w))
    size = pixels // best, best
    return replace(shape, source=size, result=size)
