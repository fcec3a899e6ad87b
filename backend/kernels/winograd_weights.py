"""The transformed weights of Winograd convolutions: G w G^T for every filter.

w lies in blocks of maps, `Acdb{B}a` or flipped `Bcda{B}b`, and u as `Cab{B}c`: for each block of maps and
each channel the filters of B maps lie together on both sides, so lanes are maps and a filter is transformed
by straight code. What pads the last block of w is zero and becomes zero.

The points of a filter lie far apart in u, often by a power of two, and would meet in the same sets of a
cache. So the filters of a run of channels are transformed into scratch memory first, then copied point by
point.
"""

from __future__ import annotations

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import SCRATCH_ALIGNMENT, Affine, Kernel
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.tiles import split
from cnnc.backend.kernels.winograd_transforms import transform_tile
from cnnc.ops.winograd import WinogradWeights
from cnnc.ops.winograd_matrices import algorithm

SHARE_OF_CACHE = 4
"""What part of the second-level cache the points of a run may fill: a quarter."""

LINE = SCRATCH_ALIGNMENT // 4
"""Elements of a cache line: so much is left between the points in scratch memory."""


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
        self.points = rows.points * columns.points
        arguments = declare(self.k, site, lambda t: t.physical if self.block > 1 else (*t.physical, 1))
        (self.source,), (self.result,) = arguments.operands, arguments.results
        self.blocks, _, _, self.channels, _ = self.source.buffer.shape
        most = max(1, site.target.l2_bytes // SHARE_OF_CACHE // (4 * self.points * self.block))
        self.run = split(self.channels, most)[0]

    def build(self) -> Kernel:
        k = self.k
        with (
            k.loop("block", 0, self.blocks, parallel=True) as block,
            k.loop("run", 0, self.channels, self.run, parallel=True) as first,
        ):
            stop = (first + self.run, self.channels)
            points = k.scratch("points", (self.points, self.run * self.block + LINE))
            with k.loop("channel", first, stop) as channel:
                for start in range(0, self.block, self.lanes):
                    self._transform(points, first, (block, channel, start))
            with k.loop("p", 0, self.points) as p, k.loop("channel", first, stop) as channel:
                for start in range(0, self.block, self.lanes):
                    value = points.load((p, (channel - first) * self.block + start), self.lanes)
                    self.result.store((block, p, channel, start), value)
        return k.build()

    def _transform(self, points: BufferHandle, first: Affine, place: tuple[Affine, Affine, int]) -> None:
        """A vector of filters, turned by 180 degrees for an input gradient; `place` is where it lies in w."""
        (block, channel, start), (kh, kw) = place, self.kernel

        def load(r: int, s: int) -> Vec:
            tap = (kh - 1 - r, kw - 1 - s) if self.op.flipped else (r, s)
            return self.source.load((block, *tap, channel, start), self.lanes)

        def store(i: int, j: int, value: Vec) -> None:
            points.store((i * self.width + j, (channel - first) * self.block + start), value)

        transform_tile(self.k, *self.matrices, self.lanes, load, store)
