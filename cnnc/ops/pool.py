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
from cnnc.ops.check import expect_rank, expect_type, take_floats
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
    """dy, x, y -> dx: each dy goes to the first place of its window, in row-major order, whose x
    equals y; where windows overlap the contributions add up."""

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
class MeanPool2d(_Pool):
    """x [N,C,H,W] -> y: the sum of each window over Kh * Kw; padding counts as zeros."""

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
        return (total / x.dtype.type(self.kernel[0] * self.kernel[1]),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        *_, height, width = operands[0].type.shape
        op = MeanPool2dGrad(self.kernel, self.stride, self.pad, size=(height, width))
        return (emit.emit(op, result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in _CASES:
            yield Sample(cls(*window), (f32(*x),))


@dataclass(frozen=True)
class MeanPool2dGrad(_Pool):
    """dy [N,C,H',W'] -> dx [N,C,H,W]: dy / (Kh * Kw) to each place of its window, added up where
    windows overlap; `size` = (H, W) is the input's."""

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
        share = dy / dy.dtype.type(self.kernel[0] * self.kernel[1])
        dx = self.window.padded(np.zeros((*dy.shape[:2], *self.size), dy.dtype))
        for _, _, rows, columns in self.window.taps(dy.shape):
            dx[:, :, rows, columns] += share
        return (self.window.cropped(dx),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(MeanPool2d(self.kernel, self.stride, self.pad), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for window, x in _CASES:
            (dy,) = MeanPool2d(*window).infer(f32(*x))
            yield Sample(cls(*window, size=(x[2], x[3])), (dy,))


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
)
