"""Neighbouring pixels as channels of one pixel, and back.

A convolution whose stride is the block sees every block of its input as one pixel: it is a convolution of
stride 1 with as many times fewer taps over as many times more channels, of the weights seen likewise.
backend/algorithms/ makes first layers into such convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_ints, expect_rank, take_floats


@dataclass(frozen=True)
class _Blocks(Op):
    """Blocks of (rows, columns) pixels; pad = (top, left, bottom, right), in pixels."""

    block: tuple[int, int]
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)

    def _take(self, operands: Sequence[TensorType]) -> TensorType:
        """The input, provided that it and the attributes are valid."""
        (x,) = take_floats(operands, "input")
        expect_rank("input", x, "N,C,H,W")
        expect_ints("block", self.block, 2, 1)
        expect_ints("pad", self.pad, 4, 0)
        return x


@dataclass(frozen=True)
class SpaceToDepth(_Blocks):
    """x [N,C,H,W], with zeros around each map, -> y [N,C*bh*bw,H'/bh,W'/bw]:
    y[n, (c * bh + p) * bw + q, i, j] = x[n, c, i * bh + p - top, j * bw + q - left]."""

    name: ClassVar[str] = "space_to_depth"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x = self._take(operands)
        n, c, h, w = x.shape
        (top, left, bottom, right), (down, across) = self.pad, self.block
        rows, columns = h + top + bottom, w + left + right
        if rows % down or columns % across:
            raise ShapeError(f"blocks of {down}x{across} do not divide the {rows}x{columns} padded input")
        return (TensorType(x.dtype, (n, c * down * across, rows // down, columns // across)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        (top, left, bottom, right), (down, across) = self.pad, self.block
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        n, c, h, w = padded.shape
        blocks = padded.reshape(n, c, h // down, down, w // across, across).transpose(0, 1, 3, 5, 2, 4)
        return (blocks.reshape(n, c * down * across, h // down, w // across).copy(),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(DepthToSpace(self.block, self.pad), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for block, pad, (n, c, h, w) in _CASES:
            yield Sample(cls(block, pad), (f32(n, c, h, w),))


@dataclass(frozen=True)
class DepthToSpace(_Blocks):
    """x [N,C*bh*bw,H,W] -> y [N,C,H*bh-top-bottom,W*bw-left-right]: what `SpaceToDepth` made x of."""

    name: ClassVar[str] = "depth_to_space"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x = self._take(operands)
        n, c, h, w = x.shape
        (top, left, bottom, right), (down, across) = self.pad, self.block
        if c % (down * across):
            raise ShapeError(f"the {c} channels of {x} do not fill blocks of {down}x{across}")
        rows, columns = h * down - top - bottom, w * across - left - right
        if min(rows, columns) < 1:
            shown = ",".join(map(str, self.pad))
            raise ShapeError(f"nothing is left of {h * down}x{w * across} pixels when ({shown}) is cropped")
        return (TensorType(x.dtype, (n, c // (down * across), rows, columns)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        (top, left, bottom, right), (down, across) = self.pad, self.block
        n, c, h, w = x.shape
        blocks = x.reshape(n, -1, down, across, h, w).transpose(0, 1, 4, 2, 5, 3)
        y = blocks.reshape(n, c // (down * across), h * down, w * across)
        return (y[:, :, top : h * down - bottom, left : w * across - right].copy(),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(SpaceToDepth(self.block, self.pad), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for block, pad, (n, c, h, w) in _CASES:
            yield Sample(cls(block, pad), SpaceToDepth(block, pad).infer(f32(n, c, h, w)))


_CASES: tuple[tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int, int, int]], ...] = (
    # block, pad, x
    ((2, 2), (3, 3, 4, 4), (2, 3, 9, 17)),
    ((2, 2), (0, 0, 1, 1), (17, 3, 7, 7)),
    ((4, 4), (2, 2, 2, 3), (1, 1, 8, 7)),
    ((3, 1), (1, 0, 0, 0), (2, 9, 8, 5)),
    ((1, 3), (0, 5, 0, 3), (1, 2, 3, 1)),
    ((2, 3), (0, 0, 0, 0), (33, 1, 2, 9)),
)
