"""The transformed weights of Winograd convolutions, u = G w G^T, for kernels that find them in memory.

Blocks of maps by runs of channels are the iterations of the parallel nest; winograd_filters.py writes one.
"""

from __future__ import annotations

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.tiles import split
from cnnc.backend.kernels.winograd_filters import Filters, FilterTransform, with_lanes
from cnnc.ops.winograd import WinogradWeights

MOST_CHANNELS = 128
"""Channels of a run: enough for long streams, and few enough to keep several threads busy."""


def winograd_weights(site: Site) -> Kernel:
    """u [maps/B, P, channels, B] of w [outputs/B, Kh, Kw, inputs, B]; for B = 1 neither has its last axis."""
    (w,), (u,), op, k = site.operands, site.results, site.op, KernelBuilder(site.op.name)
    assert isinstance(op, WinogradWeights)
    arguments = declare(k, site, with_lanes)
    (source,), (result,) = arguments.operands, arguments.results
    filters = Filters(w, op.tile, op.flipped, op.stride)
    units = split(-(-filters.channels // filters.unit), max(1, MOST_CHANNELS // filters.unit))[0]
    transform = FilterTransform(k, filters, source, u.layout.block, units * filters.unit, site.target)
    rows, columns = filters.axes
    with (
        k.loop("block", 0, transform.blocks, parallel=True) as block,
        k.loop("run", 0, transform.runs, parallel=True) as run,
    ):
        transform.begin(block, run)
        for row in range(rows.points):

            def store(column: int, channel: Affine, start: int, value: Vec, row: int = row) -> None:
                result.store((block, row * columns.points + column, channel, start), value)

            transform.write_row(block, run, row, store)
    return k.build()
