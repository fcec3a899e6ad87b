"""The transformed weights of Winograd convolutions: G w G^T for every filter.

w lies in blocks of maps, `Acdb{B}a` or flipped `Bcda{B}b`, and u as `aCb{B}c`: for each block of maps and
each channel the filters of B maps lie together on both sides, so lanes are maps and a filter is transformed
by straight code. What pads the last block of w is zero and becomes zero.
"""

from __future__ import annotations

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.winograd_transforms import transform_tile
from cnnc.ops.winograd import WinogradWeights
from cnnc.ops.winograd_matrices import algorithm


def winograd_weights(site: Site) -> Kernel:
    """u [P, maps/B, channels, B] of w [maps/B, Kh, Kw, channels, B]; for B = 1 neither has its last axis."""
    op, w = site.op, site.operands[0]
    assert isinstance(op, WinogradWeights)
    kh, kw = w.shape[2:]
    rows, columns = algorithm(op.tile[0], kh), algorithm(op.tile[1], kw)
    block, lanes = w.layout.block, min(site.target.lanes, w.layout.block)
    k = KernelBuilder(op.name)
    arguments = declare(k, site, lambda t: t.physical if block > 1 else (*t.physical, 1))
    source, result = arguments.operands[0], arguments.results[0]
    blocks, _, _, channels, _ = source.buffer.shape
    with k.loop("block", 0, blocks, parallel=True) as b, k.loop("channel", 0, channels, parallel=True) as c:

        def filters_from(start: int) -> None:
            """A vector of filters; those of an input gradient are turned by 180 degrees."""

            def load(r: int, s: int) -> Vec:
                tap = (kh - 1 - r, kw - 1 - s) if op.flipped else (r, s)
                return source.load((b, *tap, c, start), lanes)

            def store(i: int, j: int, value: Vec) -> None:
                result.store((i * columns.points + j, b, c, start), value)

            transform_tile(k, rows.filter, columns.filter, lanes, load, store)

        for start in range(0, block, lanes):
            filters_from(start)
    return k.build()
