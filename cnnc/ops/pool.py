"""Max and mean pooling of [N,C,H,W] over windows in each channel, and their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample, Trait
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_ints, expect_rank, expect_type, take_floats
from cnnc.ops.samples import LinkedSample
from cnnc.ops.window import Window


@dataclass(frozen=True)
class _Pool(Op):
    """The attributes the four ops share; pad = (top, left, bottom, right), pairs are (rows, columns)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def window(self) -> Window:
        return Window(self.kernel, self.stride, self.pad)

    def _result(self, x: TensorType) -> TensorType:
        expect_rank("input", x, "N,C,H,W")
        n, c, height, width = x.shape
        size = self.window.result_size(height, width)
        if any(pad >= k for pad, k in zip(self.pad, self.kernel * 2, strict=True)):
            pads, (kh, kw) = ",".join(map(str, self.pad)), self.kernel
            raise ShapeError(f"pad ({pads}) must be smaller than the {kh}x{kw} window")
        return TensorType(x.dtype, (n, c, *size))


@dataclass(frozen=True)
class MaxPool2d(_Pool):
    """x [N,C,H,W] -> y: the largest value of each window; padding never wins."""

    name: ClassVar[str] = "max_pool2d"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.POOLING, Trait.EPILOGUE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        return (self._result(x),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        padded, size = self.window.padded(x, -np.inf), self.window.result_size(*x.shape[2:])
        places = [padded[:, :, rows, columns] for _, _, rows, columns in self.window.taps(size)]
        return (np.maximum.reduce(places),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        op = MaxPool2dGrad(self.kernel, self.stride, self.pad)
        return (emit.emit(op, result_grads[0], operands[0], results[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in _CASES:
            yield Sample(cls(*window), (f32(*x),))


@dataclass(frozen=True)
class MaxPool2dGrad(_Pool):
    """dy, x, y -> dx, y being x pooled: each dy goes to the first place of its window, in row-major order,
    whose x equals y; where windows overlap the contributions add up."""

    name: ClassVar[str] = "max_pool2d_grad"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.EPILOGUE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dy, x, y = take_floats(operands, "result gradient", "input", "result")
        expected, why = self._result(x), f"pooling the input {x}"
        expect_type("result gradient", dy, expected, why)
        expect_type("result", y, expected, why)
        return (x,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, x, y = operands
        padded = self.window.padded(x, -np.inf)
        dx = np.zeros_like(padded)
        routed = np.zeros(dy.shape, dtype=bool)
        for _, _, rows, columns in self.window.taps(dy.shape):
            first = ~routed & (padded[:, :, rows, columns] == y)
            dx[:, :, rows, columns] += np.where(first, dy, 0)
            routed |= first
        return (self.window.cropped(dx),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError("max_pool2d_grad has no derivative: second derivatives stop at max pooling")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in _CASES:
            pool = MaxPool2d(*window)
            (y,) = pool.infer(f32(*x))
            yield LinkedSample(cls(*window), (y, f32(*x), y), links=((2, pool, (1,)),))


@dataclass(frozen=True)
class _MeanPool(_Pool):
    """What the two means share: how many elements each window's sum is divided by.

    Padding counts as zeros, but for the outermost `uncounted` = (top, left, bottom, right) rows and
    columns of it, which are no part of a window's size.
    """

    uncounted: tuple[int, int, int, int] = (0, 0, 0, 0)

    def counts(self, axis: int, size: int, windows: int) -> tuple[int, ...]:
        """The counted rows (axis 0) or columns (1) of each of so many windows on a map of that size."""
        first = self.uncounted[axis]
        end = self.pad[axis] + size + self.pad[axis + 2] - self.uncounted[axis + 2]
        starts = (i * self.stride[axis] for i in range(windows))
        return tuple(min(start + self.kernel[axis], end) - max(start, first) for start in starts)

    def _areas(self, x: TensorType, y: TensorType) -> Array:
        """The counted elements of each window, [H',W']."""
        rows, columns = (self.counts(axis, x.shape[2 + axis], y.shape[2 + axis]) for axis in (0, 1))
        return np.outer(rows, columns)

    def _result(self, x: TensorType) -> TensorType:
        result = super()._result(x)
        expect_ints("uncounted", self.uncounted, 4, 0)
        if any(u > p for u, p in zip(self.uncounted, self.pad, strict=True)):
            outside, pads = (",".join(map(str, sides)) for sides in (self.uncounted, self.pad))
            raise ShapeError(f"uncounted ({outside}) is part of the padding, which is ({pads})")
        return result


@dataclass(frozen=True)
class MeanPool2d(_MeanPool):
    """x [N,C,H,W] -> y: the sum of each window over its counted elements, Kh * Kw where all are."""

    name: ClassVar[str] = "mean_pool2d"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.POOLING, Trait.EPILOGUE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        return (self._result(x),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        padded, size = self.window.padded(x), self.window.result_size(*x.shape[2:])
        total = np.zeros((*x.shape[:2], *size), x.dtype)
        for _, _, rows, columns in self.window.taps(size):
            total += padded[:, :, rows, columns]
        return (total / self._areas(f32(*x.shape), f32(*total.shape)).astype(x.dtype),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        *_, height, width = operands[0].type.shape
        op = MeanPool2dGrad(self.kernel, self.stride, self.pad, self.uncounted, size=(height, width))
        return (emit.emit(op, result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in _CASES:
            yield Sample(cls(*window), (f32(*x),))
        for window, uncounted, x in _COUNTED:
            yield Sample(cls(*window, uncounted), (f32(*x),))


@dataclass(frozen=True)
class MeanPool2dGrad(_MeanPool):
    """dy [N,C,H',W'] -> dx [N,C,H,W]: dy over the window's counted elements to each of its places, added
    up where windows overlap; `size` = (H, W) is the input's."""

    name: ClassVar[str] = "mean_pool2d_grad"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.EPILOGUE})
    size: tuple[int, int] = (1, 1)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (dy,) = take_floats(operands, "result gradient")
        expect_rank("result gradient", dy, "N,C,H,W")
        dx = TensorType(dy.dtype, (*dy.shape[:2], *self.size))
        expect_type("result gradient", dy, self._result(dx), f"pooling the input {dx}")
        return (dx,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (dy,) = operands
        dx = np.zeros((*dy.shape[:2], *self.size), dy.dtype)
        share = dy / self._areas(f32(*dx.shape), f32(*dy.shape)).astype(dy.dtype)
        padded = self.window.padded(dx)
        for _, _, rows, columns in self.window.taps(dy.shape):
            padded[:, :, rows, columns] += share
        return (self.window.cropped(padded),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        op = MeanPool2d(self.kernel, self.stride, self.pad, self.uncounted)
        return (emit.emit(op, result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in MeanPool2d.samples():
            op = sample.op
            assert isinstance(op, MeanPool2d)
            *_, height, width = sample.operands[0].shape
            same = op.kernel, op.stride, op.pad, op.uncounted
            yield Sample(cls(*same, size=(height, width)), op.infer(*sample.operands))


_Attributes = tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]

_CASES: tuple[tuple[_Attributes, tuple[int, ...]], ...] = (
    # (kernel, stride, pad), x
    (((2, 2), (2, 2), (0, 0, 0, 0)), (2, 6, 8, 8)),
    (((2, 2), (2, 2), (0, 0, 0, 0)), (1, 17, 7, 9)),
    (((3, 3), (2, 2), (1, 1, 1, 1)), (2, 7, 9, 17)),
    (((3, 3), (1, 1), (1, 1, 1, 1)), (1, 3, 5, 7)),
    (((3, 2), (1, 3), (2, 0, 1, 1)), (3, 1, 7, 9)),
    (((7, 7), (1, 1), (0, 0, 0, 0)), (2, 33, 7, 7)),
    (((1, 1), (2, 2), (0, 0, 0, 0)), (1, 9, 5, 3)),
    (((9, 17), (1, 1), (0, 0, 0, 0)), (3, 33, 9, 17)),
    (((3, 3), (2, 2), (0, 0, 1, 1)), (1, 17, 8, 6)),
    (((5, 4), (2, 3), (4, 1, 2, 3)), (1, 7, 9, 9)),
)

_COUNTED: tuple[tuple[_Attributes, tuple[int, int, int, int], tuple[int, ...]], ...] = (
    # (kernel, stride, pad), uncounted, x
    (((3, 3), (2, 2), (1, 1, 1, 1)), (1, 1, 1, 1), (2, 7, 9, 17)),
    (((3, 3), (1, 1), (1, 1, 1, 1)), (1, 1, 1, 1), (1, 17, 7, 7)),
    (((3, 2), (2, 2), (1, 0, 2, 1)), (0, 0, 1, 1), (1, 9, 7, 7)),
    (((5, 5), (3, 2), (2, 3, 4, 1)), (2, 1, 3, 0), (1, 3, 9, 7)),
)
