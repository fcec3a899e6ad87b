"""Where the products of a Winograd convolution find their weights: transformed in memory, or made on the way.

Transformed weights are 2 to 5 times as large as the filters they are made of. What is made on the way never
leaves the first-level cache: a block of maps by a run of channels at a time is transformed into scratch
memory, a row of points after the other, and multiplied there. That pays where weights are large and few
blocks of tiles need them.
"""

from __future__ import annotations

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.fetch import apart
from cnnc.backend.kernels.rows import where_inside
from cnnc.backend.kernels.site import Tensor
from cnnc.backend.kernels.tiles import LONG_ROW, block_for
from cnnc.backend.kernels.winograd_blocks import Inline, filter_run
from cnnc.backend.kernels.winograd_filters import Filters, FilterTransform
from cnnc.backend.target import Target
from cnnc.ops.winograd import InlineWinogradConv2d, WinogradConv2d

PREFETCH_BYTES = 8192
"""How far ahead weights are asked for that come from behind the second-level cache: two pages, for
the processor's own prefetchers stop at the end of one."""


class Weights:
    """Transformed weights u [K/B,P,C,B] in memory. All `channels` are there for each product."""

    runs, inline = 1, None

    def __init__(self, u: Tensor, handle: BufferHandle, target: Target) -> None:
        self.maps, self.block, self.run = u.shape[2], u.layout.block, u.shape[1]
        self._handle, self._lanes = handle, min(target.lanes, self.block)
        self._is_streamed = 4 * u.size > target.l2_bytes

    def vectors(self, block: Affine, point: Affine, channel: Affine, count: int) -> list[Vec]:
        """The first `count` vectors of maps of a block, at a channel of the run."""
        lanes = self._lanes
        if self._is_streamed:
            for line in range(0, count * lanes, LINE):
                ahead = channel + PREFETCH_BYTES // (4 * self.block)
                self._handle.prefetch((block, point, ahead, line))
        return [self._handle.load((block, point, channel, v * lanes), lanes) for v in range(count)]


class InlineWeights:
    """Weights w [O/B,Kh,Kw,I,B], which are transformed for a block of maps, a run of channels and a row of
    points at a time."""

    def __init__(self, k: KernelBuilder, filters: Filters, handle: BufferHandle, target: Target) -> None:
        self._k, (rows, columns) = k, filters.axes
        self.maps = filters.maps
        self.rows = rows.points
        self.block = block_for(target, LONG_ROW, filters.maps) if filters.flipped else filters.w.layout.block
        run = filter_run(target, columns.points, self.block, filters.channels, filters.unit)
        self._transform = FilterTransform(k, filters, handle, self.block, run, target)
        self.run, self.runs = min(run, filters.channels), self._transform.runs
        self.inline = Inline(filters.kernel[0] * filters.kernel[1], self.runs, filters.flipped)
        self._lanes = min(target.lanes, self.block)
        self._made = k.scratch("filters", (columns.points, apart(self.run * self.block)))

    def begin(self, block: Affine, run: Affine) -> None:
        """What comes before the rows of a run for a block of maps."""
        self._transform.begin(block, run)

    def make(self, block: Affine, run: Affine, row: Affine, rows: range) -> None:
        """Transform a row of points, one of `rows`."""

        def store(column: int, channel: Affine, start: int, value: Vec) -> None:
            self._made.store((column, (channel - run * self.run) * self.block + start), value)

        for number in rows:
            with where_inside(self._k, row - number, 1):
                if self.runs > 1:
                    self._transform.prefetch(block, run + 1, number, self.rows)
                self._transform.write_row(block, run, number, store)

    def vectors(self, block: Affine, column: Affine, channel: Affine, count: int) -> list[Vec]:
        """The first `count` vectors of maps of the block, at a point of the row and a channel of the run."""
        places = ((column, channel * self.block + v * self._lanes) for v in range(count))
        return [self._made.load(place, self._lanes) for place in places]


def weights_of(
    k: KernelBuilder, op: WinogradConv2d, tensor: Tensor, handle: BufferHandle, target: Target
) -> Weights | InlineWeights:
    """The second operand of a convolution."""
    if isinstance(op, InlineWinogradConv2d):
        return InlineWeights(k, Filters(tensor, op.tile, op.flipped, op.stride), handle, target)
    return Weights(tensor, handle, target)
