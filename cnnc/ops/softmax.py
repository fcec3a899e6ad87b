"""Softmax over the channel axis, its logarithm, and their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_type, take_floats

_SHAPES = ((1, 10), (7, 33), (3, 2), (2, 17, 3, 5), (9, 7, 1, 1), (1, 361))


@dataclass(frozen=True)
class Softmax(Op):
    """x [N,C,...] -> y: exp(x) over the sum of exp(x) along axis 1. The maximum is subtracted first,
    so that no exponential overflows."""

    name: ClassVar[str] = "softmax"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        _expect_channels("input", x)
        return (x,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        powers = np.exp(x - x.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(SoftmaxGrad(), result_grads[0], results[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in _SHAPES:
            yield Sample(cls(), (f32(*shape),), ((-3, 3),))


@dataclass(frozen=True)
class SoftmaxGrad(Op):
    """dy, y -> dx = y * (dy - sum of dy * y along axis 1): the Jacobian is y_a (delta_ab - y_b)."""

    name: ClassVar[str] = "softmax_grad"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dy, y = take_floats(operands, "result gradient", "result")
        _expect_channels("result", y)
        expect_type("result gradient", dy, y, "the result")
        return (y,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, y = operands
        return (y * (dy - (dy * y).sum(axis=1, keepdims=True)),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError("softmax_grad has no derivative: second derivatives stop at softmax")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in _SHAPES:
            yield Sample(cls(), (f32(*shape), f32(*shape)), ((-1, 1), (0, 1)))


@dataclass(frozen=True)
class LogSoftmax(Op):
    """x [N,C,...] -> y: x - max x - log of the sum of exp(x - max x) along axis 1, softmax's logarithm."""

    name: ClassVar[str] = "log_softmax"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        _expect_channels("input", x)
        return (x,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        shifted = x - x.max(axis=1, keepdims=True)
        return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(LogSoftmaxGrad(), result_grads[0], results[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in _SHAPES:
            yield Sample(cls(), (f32(*shape),), ((-3, 3),))


@dataclass(frozen=True)
class LogSoftmaxGrad(Op):
    """dy, y -> dx = dy - exp(y) * sum of dy along axis 1: the Jacobian is delta_ab - exp(y_b)."""

    name: ClassVar[str] = "log_softmax_grad"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dy, y = take_floats(operands, "result gradient", "result")
        _expect_channels("result", y)
        expect_type("result gradient", dy, y, "the result")
        return (y,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, y = operands
        return (dy - np.exp(y) * dy.sum(axis=1, keepdims=True),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError("log_softmax_grad has no derivative: second derivatives stop at log_softmax")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in _SHAPES:
            yield Sample(cls(), (f32(*shape), f32(*shape)), ((-1, 1), (-5, 0)))


def _expect_channels(name: str, type: TensorType) -> None:
    if type.rank < 2:
        raise ShapeError(f"got {type} as the {name}, which must have a batch and a channel axis")
