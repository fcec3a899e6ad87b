"""The transformed weights of Winograd convolutions: G w G^T for every filter.

w lies in blocks of maps, `Acdb{B}a` or flipped `Bcda{B}b`, and u as `Cab{B}c`: for each block of maps and
each channel the filters of B maps lie together on both sides, so lanes are maps and a filter is transformed
by straight code. What pads the last block of w is zero and becomes zero.

The points of a filter lie far apart in u, often by a power of two, and would meet in the same sets of a
cache. So a row of points is computed for all channels of a run before the next one, from taps that are still
in the cache: few streams are written at a time, each of them in order.
"""

from __future__ import annotations

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.tiles import split
from cnnc.backend.kernels.winograd_transforms import transform_tile
from cnnc.ops.winograd import WinogradWeights
from cnnc.ops.winograd_matrices import algorithm

MOST_CHANNELS = 128
"""Channels of a run: enough for long streams, and few enough to keep several threads busy."""


def winograd_weights(site: Site) -> Kernel:
    """u [maps/B, P, channels, B] of w [maps/B, Kh, Kw, channels, B]; for B = 1 neither has its last axis."""
    return _Weights(site).build()


class _Weights:
    """Writes one transform."""

    def __init__(self, site: Site) -> None:
        assert isinstance(site.op, WinogradWeights)
        (w,), self.op, self.k = site.operands, site.op, KernelBuilder(site.op.name)
        self.block, self.lanes = w.layout.block, min(site.target.lanes, w.layout.block)
        self.kernel = (w.shape[2], w.shape[3])
        rows, columns = (algorithm(m, taps) for m, taps in zip(site.op.tile, self.kernel, strict=True))
        self.matrices, self.width = (rows.filter, columns.filter), columns.points
        arguments = declare(self.k, site, lambda t: t.physical if self.block > 1 else (*t.physical, 1))
        (self.source,), (self.result,) = arguments.operands, arguments.results
        self.blocks, _, _, self.channels, _ = self.source.buffer.shape
        self.run = split(self.channels, MOST_CHANNELS)[0]

    def build(self) -> Kernel:
        k = self.k
        with (
            k.loop("block", 0, self.blocks, parallel=True) as block,
            k.loop("run", 0, self.channels, self.run, parallel=True) as first,
        ):
            for row in range(len(self.matrices[0])):
                with k.loop("channel", first, (first + self.run, self.channels)) as channel:
                    for start in range(0, self.block, self.lanes):
                        self._transform(row, (block, channel, start))
        return k.build()

    def _transform(self, row: int, place: tuple[Affine, Affine, int]) -> None:
        """A vector of filters, turned by 180 degrees for an input gradient; `place` is where it lies in w."""
        (block, channel, start), (kh, kw) = place, self.kernel

        def load(r: int, s: int) -> Vec:
            tap = (kh - 1 - r, kw - 1 - s) if self.op.flipped else (r, s)
            return self.source.load((block, *tap, channel, start), self.lanes)

        def store(i: int, j: int, value: Vec) -> None:
            self.result.store((block, row * self.width + j, channel, start), value)

        rows, columns = self.matrices
        transform_tile(self.k, (rows[row],), columns, self.lanes, load, store)
