"""Where a pooling window lies inside its map, for kernels that must not read the padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, affine

UNROLLED_TAPS = 16
"""Places of a window up to which it is written out instead of looped over."""


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
            for r in range(self.kernel[0]):
                body(affine(r))
            return
        shift = oy * self.stride[0]
        start = (0, self.pad[0] - shift) if clipped else 0
        with k.loop("r", start, (self.kernel[0], height - shift) if clipped else self.kernel[0]) as r:
            body(r)

    def each_column(self, k: KernelBuilder, body: Callable[[Affine, Sequence[int]], None]) -> None:
        """`body(ox, taps)` for every column of windows and the window's columns that are on the map.

        Windows inside the map share a loop; those that stick out are written one by one.
        """
        left, width, (wide, step) = self.pad[1], self.size[1], (self.kernel[1], self.stride[1])
        first = min(self.result[1], -(-left // step))
        last = max(first, min(self.result[1], (width + left - wide) // step + 1))
        edges = [*range(first), *range(last, self.result[1])]
        if first < last:
            with k.loop("ox", first, last) as ox:
                body(ox, range(wide))
        for edge in edges:
            body(affine(edge), range(max(0, left - edge * step), min(wide, width + left - edge * step)))
