"""The transformed weights of Winograd convolutions: G w G^T for every filter.

w lies in blocks of its outputs, `Acdb{B}a`, and u in blocks of maps, `Cab{B}c`. For a convolution the two are
the same: lanes are maps, and a filter is transformed by straight code. What pads the last block of w is zero
and becomes zero. The maps of an input gradient are the inputs of w. There a run of filters is transposed into
scratch memory first, square by square.

The points of a filter lie far apart in u, often by a power of two, and would meet in the same sets of a
cache. So a row of points is computed for all channels of a run before the next one, from taps that are still
in the cache: few streams are written at a time, each of them in order.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.rows import each_part
from cnnc.backend.kernels.site import Site, Tensor, declare
from cnnc.backend.kernels.tiles import split
from cnnc.backend.kernels.winograd_transforms import transform_tile
from cnnc.ops.winograd import WinogradWeights
from cnnc.ops.winograd_matrices import algorithm

MOST_CHANNELS = 128
"""Channels of a run: enough for long streams, and few enough to keep several threads busy."""


def winograd_weights(site: Site) -> Kernel:
    """u [maps/B, P, channels, B] of w [outputs/B, Kh, Kw, inputs, B]; for B = 1 neither has its last axis."""
    return _Weights(site).build()


@dataclass(frozen=True)
class _Taps:
    """Where a run finds its filters: of block `block` the channels from `origin` on."""

    handle: BufferHandle
    block: Affine
    origin: Affine

    def load(self, tap: tuple[int, int], channel: Affine, start: int, lanes: int) -> Vec:
        return self.handle.load((self.block, *tap, channel - self.origin, start), lanes)


class _Weights:
    """Writes one transform."""

    def __init__(self, site: Site) -> None:
        assert isinstance(site.op, WinogradWeights)
        (w,), (u,), self.op, self.k = site.operands, site.results, site.op, KernelBuilder(site.op.name)
        self.block, self.lanes = u.layout.block, min(site.target.lanes, u.layout.block)
        self.kernel = (w.shape[2], w.shape[3])
        rows, columns = (algorithm(m, taps) for m, taps in zip(site.op.tile, self.kernel, strict=True))
        self.matrices, self.width = (rows.filter, columns.filter), columns.points
        arguments = declare(self.k, site, _with_lanes)
        (self.source,), (self.result,) = arguments.operands, arguments.results
        self.blocks, _, self.channels, _ = self.result.buffer.shape
        self.maps, self.packed = u.shape[2], w.layout.block
        self.edge = min(self.lanes, self.packed)
        unit = self.packed if self.op.flipped else 1
        self.run = split(-(-self.channels // unit), max(1, MOST_CHANNELS // unit))[0] * unit

    def build(self) -> Kernel:
        k = self.k
        with (
            k.loop("block", 0, self.blocks, parallel=True) as block,
            k.loop("run", 0, -(-self.channels // self.run), parallel=True) as number,
        ):
            first = number * self.run
            taps = self._turned(block, number) if self.op.flipped else _Taps(self.source, block, affine(0))
            for row in range(len(self.matrices[0])):
                with k.loop("channel", first, (first + self.run, self.channels)) as channel:
                    for start in range(0, self.block, self.lanes):
                        self._transform(taps, row, (block, channel, start))
        return k.build()

    def _transform(self, taps: _Taps, row: int, place: tuple[Affine, Affine, int]) -> None:
        """A row of points of a vector of filters, which lies at `place` in u."""
        block, channel, start = place

        def load(r: int, s: int) -> Vec:
            return taps.load((r, s), channel, start, self.lanes)

        def store(_: int, j: int, value: Vec) -> None:
            self.result.store((block, row * self.width + j, channel, start), value)

        rows, columns = self.matrices
        transform_tile(self.k, (rows[row],), columns, self.lanes, load, store)

    def _turned(self, block: Affine, run: Affine) -> _Taps:
        """The filters of a run of outputs by a block of inputs, transposed and turned by 180 degrees."""
        k, (kh, kw), outputs = self.k, self.kernel, self.run // self.packed
        turned = k.scratch("turned", (1, kh, kw, self.run, self.block))
        most, first = self.source.buffer.shape[0], run * outputs

        def squares(inputs: Affine, known: int) -> None:
            with (
                k.loop("outputs", first, (first + outputs, most)) as output,
                k.loop("r", 0, kh) as r,
                k.loop("s", 0, kw) as s,
                k.once_or_loop("part", self.packed // self.edge) as part,
            ):
                place = part * self.edge
                channel = (output - first) * self.packed + place
                for start in range(0, self.block, self.edge):
                    rows = [
                        self.source.load((output, r, s, inputs * self.block + start + i, place), self.edge)
                        for i in range(min(known - start, self.edge))
                    ]
                    for i, row in enumerate(k.transposed(rows, self.edge)):
                        turned.store((0, kh - 1 - r, kw - 1 - s, channel + i, start), row)

        each_part(k, block, self.blocks, self.maps, self.block, squares)
        return _Taps(turned, affine(0), run * self.run)


def _with_lanes(tensor: Tensor) -> tuple[int, ...]:
    """The shape in memory, a last axis of length 1 where blocks are of one element."""
    return tensor.physical if tensor.layout.block > 1 else (*tensor.physical, 1)
