"""Losses of a batch, their gradients, and the count of right answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_rank, expect_type, take, take_floats
from cnnc.ops.elementwise import Map, Mul
from cnnc.ops.reduce import Sum

_LOGITS = ((1, 10), (64, 10), (7, 33), (17, 2), (9, 1))


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Op):
    """logits [N,C], labels i32[N] -> the mean over the batch of -log softmax(logits)[label], [].

    Labels outside 0..C-1 are the caller's to refuse.
    """

    name: ClassVar[str] = "softmax_cross_entropy"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        logits, labels = take(operands, "logits", "labels")
        _expect_labels(logits, labels)
        return (TensorType(logits.dtype, ()),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        logits, labels = operands
        shifted = logits - logits.max(axis=1, keepdims=True)
        right = np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
        losses = np.log(np.exp(shifted).sum(axis=1)) - right
        return (np.asarray(losses.mean(), dtype=logits.dtype),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(SoftmaxCrossEntropyGrad(), result_grads[0], *operands), None)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for n, c in _LOGITS:
            yield Sample(cls(), (f32(n, c), _labels(n)), ((-3, 3), (0, c - 1)))


@dataclass(frozen=True)
class SoftmaxCrossEntropyGrad(Op):
    """dloss [], logits [N,C], labels i32[N] -> dlogits = dloss / N * (softmax(logits) - one at the label)."""

    name: ClassVar[str] = "softmax_cross_entropy_grad"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dloss, logits, labels = take(operands, "loss gradient", "logits", "labels")
        _expect_labels(logits, labels)
        expect_type("loss gradient", dloss, TensorType(logits.dtype, ()), "a scalar loss")
        return (logits,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dloss, logits, labels = operands
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        dlogits = powers / powers.sum(axis=1, keepdims=True)
        dlogits[np.arange(len(labels)), labels] -= 1
        return (dlogits * (dloss / logits.dtype.type(len(labels))),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError("softmax_cross_entropy_grad has no derivative: differentiate the loss once")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for n, c in _LOGITS:
            yield Sample(cls(), (f32(), f32(n, c), _labels(n)), ((0.5, 2), (-3, 3), (0, c - 1)))


@dataclass(frozen=True)
class SquaredError(Op):
    """prediction, target [N,...] -> the mean over the batch of the summed squares of the difference, []."""

    name: ClassVar[str] = "squared_error"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        prediction, target = take_floats(operands, "prediction", "target")
        _expect_pair(prediction, target)
        return (TensorType(prediction.dtype, ()),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        prediction, target = operands
        total = np.square(prediction - target).sum() / prediction.dtype.type(prediction.shape[0])
        return (np.asarray(total, dtype=prediction.dtype),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        prediction = emit.emit(SquaredErrorGrad(), result_grads[0], *operands)
        return (prediction, emit.emit(Map("-a"), prediction))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in ((64, 10), (1, 7), (3, 2, 5, 9), (17,)):
            yield Sample(cls(), (f32(*shape), f32(*shape)))


@dataclass(frozen=True)
class SquaredErrorGrad(Op):
    """dloss [], prediction, target [N,...] -> dprediction = dloss * 2 / N * (prediction - target)."""

    name: ClassVar[str] = "squared_error_grad"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dloss, prediction, target = take_floats(operands, "loss gradient", "prediction", "target")
        _expect_pair(prediction, target)
        expect_type("loss gradient", dloss, TensorType(prediction.dtype, ()), "a scalar loss")
        return (prediction,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dloss, prediction, target = operands
        scale = 2 * dloss / prediction.dtype.type(prediction.shape[0])
        return (((prediction - target) * scale).astype(prediction.dtype),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        (dloss, prediction, target), (g,) = operands, result_grads
        scale = 2.0 / prediction.type.shape[0]
        to_prediction = emit.emit(Map(f"{scale} * a * b"), g, dloss)
        slopes = emit.emit(Map(f"{scale} * (a - b)"), prediction, target)
        to_dloss = emit.emit(Sum(tuple(range(g.type.rank))), emit.emit(Mul(), g, slopes))
        return (to_dloss, to_prediction, emit.emit(Map("-a"), to_prediction))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in ((64, 10), (1, 7), (3, 2, 5, 9), (17,)):
            yield Sample(cls(), (f32(), f32(*shape), f32(*shape)))


@dataclass(frozen=True)
class CorrectCount(Op):
    """logits [N,C], labels i32[N] -> the number of rows whose first maximum is at the label, []."""

    name: ClassVar[str] = "correct_count"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        logits, labels = take(operands, "logits", "labels")
        _expect_labels(logits, labels)
        return (TensorType(logits.dtype, ()),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        logits, labels = operands
        return (np.asarray((logits.argmax(axis=1) == labels).sum(), dtype=logits.dtype),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (None, None)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for n, c in _LOGITS:
            yield Sample(cls(), (f32(n, c), _labels(n)), ((-3, 3), (0, c - 1)))


def _labels(n: int) -> TensorType:
    return TensorType("i32", (n,))


def _expect_labels(logits: TensorType, labels: TensorType) -> None:
    take_floats((logits,), "logits")
    expect_rank("logits", logits, "N,C")
    expect_type("labels", labels, _labels(logits.shape[0]), f"one label per row of the logits {logits}")


def _expect_pair(prediction: TensorType, target: TensorType) -> None:
    if prediction.shape != target.shape:
        raise ShapeError(f"the prediction is {prediction}, the target is {target}: shapes must agree")
    if prediction.rank < 1:
        raise ShapeError(f"got {prediction} as the prediction, which must have a batch axis")
