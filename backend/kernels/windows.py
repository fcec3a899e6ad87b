"""Pooling windows on channels-last maps, for kernels that never touch the padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cnnc.backend.kernel.builder import Bound, BufferHandle, Coordinate, KernelBuilder, Vec
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
        return self.handle.load(self._place(y, x), self.lanes, self.count)

    def store(self, y: Affine, x: Affine, value: Vec) -> None:
        self.handle.store(self._place(y, x), value, self.count)

    def _place(self, y: Affine, x: Affine) -> tuple[Coordinate, ...]:
        return self.tensor.place((self.image, self.channel, y, x))


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
    def taps(self) -> int:
        return math.prod(self.kernel)

    def row(self, oy: Affine, r: Affine) -> Affine:
        """The map's row under row `r` of windows in row `oy`."""
        return oy * self.stride[0] + r - self.pad[0]

    def column(self, ox: Affine, s: int) -> Affine:
        return ox * self.stride[1] + s - self.pad[1]

    def each_row(self, k: KernelBuilder, oy: Affine, body: Callable[[Affine], None]) -> None:
        """`body(r)` for the rows of windows in row `oy` that are on the map."""
        height, below = self.size[0] + self.pad[0], (self.result[0] - 1) * self.stride[0] + self.kernel[0]
        clipped = self.pad[0] > 0 or below > height
        if not clipped and self.taps <= UNROLLED_TAPS:
            for number in range(self.kernel[0]):
                body(affine(number))
            return
        shift = oy * self.stride[0]
        start: Bound = (0, self.pad[0] - shift) if clipped else 0
        stop: Bound = (self.kernel[0], height - shift) if clipped else self.kernel[0]
        with k.loop("r", start, stop) as r:
            body(r)

    def each_column(self, k: KernelBuilder, body: Callable[[Affine, Sequence[int]], None]) -> None:
        """`body(ox, taps)` for every column of windows and the window's columns that are on the map.

        Windows inside the map share a loop; those that stick out are written one by one.
        """
        left, width, wide, step = self.pad[1], self.size[1], self.kernel[1], self.stride[1]
        first = min(self.result[1], -(-left // step))
        last = max(first, min(self.result[1], (width + left - wide) // step + 1))
        edges = [*range(first), *range(last, self.result[1])]
        if first < last:
            with k.loop("ox", first, last) as ox:
                body(ox, range(wide))
        for edge in edges:
            body(affine(edge), range(max(0, left - edge * step), min(wide, width + left - edge * step)))
