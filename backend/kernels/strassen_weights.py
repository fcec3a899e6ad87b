"""The halves of weights and their sums for Strassen's products.

Maps, along which lanes run, lie in blocks that divide a half of them, so that halves of weights are whole
blocks and the two maps of a sum lie at the same place in theirs.
"""

from __future__ import annotations

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.strassen_blocks import halves_lanes
from cnnc.backend.kernels.winograd_filters import with_lanes
from cnnc.errors import UnsupportedError
from cnnc.ops.strassen import StrassenWeights

RUN = 64
"""Channels of an iteration of the parallel nest."""


def strassen_weights(site: Site) -> Kernel:
    """u [maps/B,7,channels,B] of w [2*maps/B,1,1,2*channels,B], where u has half the maps and channels; for
    B = 1 neither has its last axis. Raises UnsupportedError for other layouts."""
    (w,), (u,), op, k = site.operands, site.results, site.op, KernelBuilder(site.op.name)
    assert isinstance(op, StrassenWeights)
    _, channels, maps = u.shape
    block, wanted = u.layout.block, ("bcda" if op.flipped else "acdb")
    if w.layout.block != block or w.layout.order.lower() != wanted or maps % block:
        raise UnsupportedError(
            f"{op.name}: blocks of {w.layout} and {u.layout} must be alike, and halve maps"
        )
    arguments = declare(k, site, with_lanes)
    (source,), (result,) = arguments.operands, arguments.results
    lanes, blocks = halves_lanes(site.target, maps), maps // block

    with (
        k.loop("block", 0, blocks, parallel=True) as number,
        k.loop("run", 0, -(-channels // RUN), parallel=True) as run,
        k.loop("c", (run * RUN,), (run * RUN + RUN, channels)) as channel,
    ):
        for start in range(0, block, lanes):

            def quarter(row: int, column: int, start: int = start) -> Vec:
                place = number + column * blocks, 0, 0, channel + row * channels, start
                return source.load(place, lanes)

            b11, b12, b21, b22 = quarter(0, 0), quarter(0, 1), quarter(1, 0), quarter(1, 1)
            t1 = b12 - b11
            t2 = b22 - t1
            for product, value in enumerate((b11, b21, t2, b22 - b12, b21 - t2, t1, b22)):
                result.store((number, product, channel, start), value)
    return k.build()
