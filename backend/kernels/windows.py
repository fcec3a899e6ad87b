"""Pooling windows on channels-last maps, for kernels that never touch the padding.

Windows that lie on the map share code; those that stick out have their own, by columns, or clip their
rows when they run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cnnc.backend.kernel.builder import Bound, BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernels.site import Tensor
from cnnc.errors import UnsupportedError
from cnnc.ir.types import TensorType
from cnnc.ops.pool import MaxPool2d, MaxPool2dGrad, MeanPool2d, MeanPool2dGrad

UNROLLED_TAPS = 16
"""Places of a window up to which it is written out instead of looped over."""

Pool = MaxPool2d | MaxPool2dGrad | MeanPool2d | MeanPool2dGrad


@dataclass(frozen=True)
class Pixels:
    """The channels from `channel` on of one image in a channels-last map, read and written by pixel.

    Raises UnsupportedError for other layouts.
    """

    handle: BufferHandle
    tensor: Tensor
    image: Affine
    channel: Affine
    lanes: int
    count: int

    def __post_init__(self) -> None:
        if self.tensor.inner_axis != 1:
            raise UnsupportedError(f"pooling needs channels-last maps (acdb), not {self.tensor.layout}")

    def load(self, y: Affine, x: Affine) -> Vec:
        place = self.tensor.place((self.image, self.channel, y, x))
        return self.handle.load(place, self.lanes, self.count)

    def prefetch(self, y: Affine, x: Affine) -> None:
        """Ask for what `load` will load; the place may lie beside the map."""
        self.handle.prefetch(self.tensor.place((self.image, self.channel, y, x)))


@dataclass(frozen=True)
class Windows:
    """Windows of `kernel` every `stride`, as pairs of (rows, columns), on a map of `size`.

    `result` of them fit on the map padded by pad = (top, left, bottom, right).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int, int, int]
    size: tuple[int, int]
    result: tuple[int, int]

    @classmethod
    def of(cls, op: Pool, x: TensorType, y: TensorType) -> Windows:
        """Those of an op that pools `x` to `y`, [N,C,H,W] both."""
        (height, width), (rows, columns) = x.shape[2:], y.shape[2:]
        return cls(op.kernel, op.stride, op.pad, (height, width), (rows, columns))

    @property
    def tile(self) -> bool:
        """Whether the windows cover the map exactly once."""
        steps = zip(self.kernel, self.stride, self.size, self.result, strict=True)
        return not any(self.pad) and all(k * n == size and (k == s or n == 1) for k, s, size, n in steps)

    @property
    def are_small(self) -> bool:
        """Whether a window is written out, place by place."""
        return math.prod(self.kernel) <= UNROLLED_TAPS

    def row(self, oy: Affine, r: Affine | int) -> Affine:
        """The map's row under row `r` of windows in row `oy`."""
        return oy * self.stride[0] + r - self.pad[0]

    def column(self, ox: Affine, s: Affine | int) -> Affine:
        return ox * self.stride[1] + s - self.pad[1]

    def inside(self, axis: int) -> tuple[int, int]:
        """First and end of the rows (axis 0) or columns (1) of windows that lie on the map."""
        before, step, wide = self.pad[axis], self.stride[axis], self.kernel[axis]
        first = min(self.result[axis], -(-before // step))
        return first, max(first, min(self.result[axis], (self.size[axis] + before - wide) // step + 1))

    def taps(self, number: int, axis: int = 1) -> range:
        """The columns of the windows in a column, or for axis 0 the rows of those in a row, on the map."""
        start = number * self.stride[axis] - self.pad[axis]
        return range(max(0, -start), min(self.kernel[axis], self.size[axis] - start))

    def shared(self, axis: int) -> int:
        """How many rows (axis 0) or columns (1) a window has in common with the next one."""
        return max(0, self.kernel[axis] - self.stride[axis])

    def split_rows(self, k: KernelBuilder, oy: Affine, body: Callable[[Affine, bool], None]) -> None:
        """`body(oy, whole)` once for a row of windows, as code that knows whether the row is on the map."""
        first, end = self.inside(0)
        if (first, end) == (0, self.result[0]):
            body(oy, True)
            return
        if first < end:
            with k.loop("inside", (oy, first), (oy + 1, end)) as row:
                body(row, True)
        if first > 0:
            with k.loop("above", oy, (oy + 1, first)) as row:
                body(row, False)
        if end < self.result[0]:
            with k.loop("below", (oy, end), oy + 1) as row:
                body(row, False)

    def each_row(self, k: KernelBuilder, oy: Affine, whole: bool, body: Callable[[Affine], None]) -> None:
        """`body(r)` for the rows of windows in row `oy` that are on the map: all of them if `whole`."""
        if whole and self.are_small:
            for number in range(self.kernel[0]):
                body(affine(number))
            return
        shift = oy * self.stride[0]
        start: Bound = 0 if whole else (0, self.pad[0] - shift)
        stop: Bound = self.kernel[0] if whole else (self.kernel[0], self.size[0] + self.pad[0] - shift)
        with k.loop("r", start, stop) as r:
            body(r)

    def each_run(self, k: KernelBuilder, most: int, body: Callable[[Affine, Sequence[range]], None]) -> None:
        """`body(ox, taps)` for runs of up to `most` windows side by side in a row: the column of the first
        window, and for each window its columns that are on the map."""
        first, end = self.inside(1)

        def edge(start: int, stop: int) -> None:
            for ox in range(start, stop, most):
                body(affine(ox), [self.taps(each) for each in range(ox, min(ox + most, stop))])

        edge(0, first)
        whole = [range(self.kernel[1])]
        each_step(k, first, end, most, lambda ox, count: body(ox, whole * count))
        edge(end, self.result[1])


def each_step(k: KernelBuilder, first: int, end: int, step: int, body: Callable[[Affine, int], None]) -> None:
    """`body(start, count)` for first..end in steps: a loop over the full ones, then what is left."""
    full = first + (end - first) // step * step
    if full - first > step:
        with k.loop("ox", first, full, step) as start:
            body(start, step)
    elif full > first:
        body(affine(first), step)
    if full < end:
        body(affine(full), end - full)
