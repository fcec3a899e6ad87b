"""The geometry of a sliding window, shared by convolution and pooling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cnnc.errors import ShapeError
from cnnc.ir.types import Array
from cnnc.ops.check import expect_ints


@dataclass(frozen=True)
class Window:
    """A Kh x Kw window on padded maps; pad = (top, left, bottom, right), the rest (rows, columns)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)

    def result_size(self, height: int, width: int) -> tuple[int, int]:
        """floor((n + pads - dilation * (k - 1) - 1) / stride) + 1 for rows and columns.

        Raises ShapeError on an attribute out of range and on a window larger than the padded map.
        """
        expect_ints("kernel", self.kernel, 2, 1)
        expect_ints("stride", self.stride, 2, 1)
        expect_ints("pad", self.pad, 4, 0)
        expect_ints("dilation", self.dilation, 2, 1)
        (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
        top, left, bottom, right = self.pad
        slack_h = height + top + bottom - dh * (kh - 1) - 1
        slack_w = width + left + right - dw * (kw - 1) - 1
        if slack_h < 0 or slack_w < 0:
            pads, dilated = ",".join(map(str, self.pad)), "" if dh == dw == 1 else f" dilated by {dh},{dw}"
            raise ShapeError(
                f"the {kh}x{kw} window{dilated} does not fit the {height}x{width} input padded by ({pads})"
            )
        return slack_h // sh + 1, slack_w // sw + 1

    def padded(self, x: Array, value: float = 0.0) -> Array:
        """Maps [...,H,W] with `value` around them."""
        top, left, bottom, right = self.pad
        widths = [(0, 0)] * (x.ndim - 2) + [(top, bottom), (left, right)]
        return np.pad(x, widths, constant_values=value)

    def cropped(self, padded: Array) -> Array:
        """The inverse of `padded`."""
        top, left, bottom, right = self.pad
        height, width = padded.shape[-2:]
        return padded[..., top : height - bottom, left : width - right].copy()

    def taps(self, result: tuple[int, ...]) -> Iterator[tuple[int, int, slice, slice]]:
        """For each place (r, s) of the window, row-major: r, s, and the rows and columns of the
        padded map that this place visits as the window takes its result[-2] x result[-1] positions."""
        rows, columns = result[-2:]
        for r in range(self.kernel[0]):
            for s in range(self.kernel[1]):
                yield (
                    r,
                    s,
                    _visited(r * self.dilation[0], self.stride[0], rows),
                    _visited(s * self.dilation[1], self.stride[1], columns),
                )


def _visited(first: int, stride: int, count: int) -> slice:
    return slice(first, first + stride * (count - 1) + 1, stride)
