"""How filters are transformed, G w G^T: a run of channels by a block of maps at a time.

w lies in blocks of its outputs, `Acdb{B}a`, and what is made of it in blocks of maps. For a convolution the
two are the same: lanes are maps, and a filter is transformed by straight code. What pads the last block of w
is zero and becomes zero. The maps of an input gradient are the inputs of w. There a run of filters is
transposed into scratch memory first, square by square.

The points of a filter may lie far apart, often by a power of two, and would meet in the same sets of a cache.
So a row of points is computed for all channels of a run before the next one, from taps that are still in the
cache: few streams are written at a time, each of them in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.rows import each_part
from cnnc.backend.kernels.site import Tensor
from cnnc.backend.kernels.winograd_transforms import transform_tile
from cnnc.backend.target import Target
from cnnc.ops.winograd import algorithms
from cnnc.ops.winograd_matrices import Algorithm

Store = Callable[[int, Affine, int, Vec], None]
"""`store(column, channel, start, value)`: a point of a row, for the maps of a block from `start` on."""


@dataclass(frozen=True)
class _Taps:
    """Where a run finds its filters: of block `block` the channels from `origin` on."""

    handle: BufferHandle
    block: Affine
    origin: Affine

    def load(self, tap: tuple[int, int], channel: Affine, start: int, lanes: int) -> Vec:
        return self.handle.load((self.block, *tap, channel - self.origin, start), lanes)


@dataclass(frozen=True)
class Filters:
    """The filters of w [O,I,Kh,Kw] as a convolution by tiles of `tile` sees them: `flipped` for an input
    gradient, whose channels are the outputs of w."""

    w: Tensor
    tile: tuple[int, int]
    flipped: bool
    stride: tuple[int, int]

    @property
    def kernel(self) -> tuple[int, int]:
        return self.w.shape[2], self.w.shape[3]

    @property
    def channels(self) -> int:
        return self.w.shape[0 if self.flipped else 1]

    @property
    def maps(self) -> int:
        return self.w.shape[1 if self.flipped else 0]

    @property
    def axes(self) -> tuple[Algorithm, Algorithm]:
        """The algorithms along rows and columns."""
        return algorithms(self.tile, self.kernel, self.stride)

    @property
    def unit(self) -> int:
        """A run is so many channels, or several times as many: what is transposed together."""
        return self.w.layout.block if self.flipped else 1


class FilterTransform:
    """Writes the transform of filters, of which `source` has the elements, for blocks of `block` maps and
    runs of `run` channels."""

    def __init__(
        self, k: KernelBuilder, filters: Filters, source: BufferHandle, block: int, run: int, target: Target
    ) -> None:
        self.k, self.filters, self.source = k, filters, source
        self.block, self.run, self.lanes = block, run, min(target.lanes, block)
        shape = (1, *filters.kernel, run, block)
        self.turned = k.scratch("turned", shape) if filters.flipped else None

    @property
    def blocks(self) -> int:
        return -(-self.filters.maps // self.block)

    @property
    def runs(self) -> int:
        return -(-self.filters.channels // self.run)

    def begin(self, block: Affine, run: Affine) -> None:
        """What comes before the rows of a run for a block of maps."""
        if self.turned is not None:
            self._turn(self.turned, block, run)

    def write_row(self, block: Affine, run: Affine, row: int, store: Store) -> None:
        """Transform a run of channels, or what there is of it, for a block of maps: one row of points."""
        first, taps = run * self.run, _Taps(self.source, block, affine(0))
        if self.turned is not None:
            taps = _Taps(self.turned, affine(0), first)
        with self.k.loop("channel", first, (first + self.run, self.filters.channels)) as channel:
            for start in range(0, self.block, self.lanes):
                self._transform(taps, row, (channel, start), store)

    def prefetch(self, block: Affine, run: Affine, part: int, parts: int) -> None:
        """Ask for a part of the filters of a run, which may be behind the last."""
        k, filters, packed = self.k, self.filters, self.filters.w.layout.block
        count, rows = (self.run // packed, self.block) if filters.flipped else (1, self.run)
        outputs, first = (run * count, block * rows) if filters.flipped else (block, run * rows)
        with k.once_or_loop("ahead", count) as ahead, k.loop("row", 0, rows) as row:
            for r, s in list(product(*map(range, filters.kernel)))[part::parts]:
                for line in range(0, packed, LINE):
                    self.source.prefetch((outputs + ahead, r, s, first + row, line))

    def _transform(self, taps: _Taps, row: int, place: tuple[Affine, int], store: Store) -> None:
        """A row of points of the vector of filters at a channel and a start in the block."""
        rows, columns = self.filters.axes

        def load(r: int, s: int) -> Vec:
            return taps.load((r, s), *place, self.lanes)

        def put(_: int, j: int, value: Vec) -> None:
            store(j, *place, value)

        transform_tile(self.k, ((rows.filter[row],),), (columns.filter,), self.lanes, load, put)

    def _turn(self, turned: BufferHandle, block: Affine, run: Affine) -> None:
        """The filters of a run of outputs by a block of inputs, transposed and turned by 180 degrees."""
        k, (kh, kw), packed = self.k, self.filters.kernel, self.filters.w.layout.block
        edge, outputs = min(self.lanes, packed), self.run // packed
        most, first = self.source.buffer.shape[0], run * outputs

        def squares(inputs: Affine, known: int) -> None:
            with (
                k.loop("outputs", first, (first + outputs, most)) as output,
                k.loop("r", 0, kh) as r,
                k.loop("s", 0, kw) as s,
                k.once_or_loop("part", packed // edge) as part,
            ):
                place = part * edge
                channel = (output - first) * packed + place
                for start in range(0, self.block, edge):
                    rows = [
                        self.source.load((output, r, s, inputs * self.block + start + i, place), edge)
                        for i in range(min(known - start, edge))
                    ]
                    for i, row in enumerate(k.transposed(rows, edge)):
                        turned.store((0, kh - 1 - r, kw - 1 - s, channel + i, start), row)

        each_part(k, block, self.blocks, self.filters.maps, self.block, squares)


def with_lanes(tensor: Tensor) -> tuple[int, ...]:
    """The shape in memory, a last axis of length 1 where blocks are of one element."""
    return tensor.physical if tensor.layout.block > 1 else (*tensor.physical, 1)
