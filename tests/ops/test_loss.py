"""Losses by hand-computed numbers, extreme logits, ties in the count of right answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType, f32
from cnnc.ops.loss import (
    CorrectCount,
    SoftmaxCrossEntropy,
    SoftmaxCrossEntropyGrad,
    SquaredError,
    SquaredErrorGrad,
)


def labels(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_cross_entropy_is_the_mean_of_minus_log_probability() -> None:
    logits = np.log(np.array([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]]))
    (loss,) = SoftmaxCrossEntropy().reference(logits, labels(1, 2))
    assert loss == pytest.approx((math.log(4) + math.log(2)) / 2)
    (grad,) = SoftmaxCrossEntropyGrad().reference(np.array(2.0), logits, labels(1, 2))
    np.testing.assert_allclose(grad, [[0.125, -0.75, 0.625], [0.25, 0.25, -0.5]])


def test_cross_entropy_of_extreme_logits_is_finite() -> None:
    (loss,) = SoftmaxCrossEntropy().reference(np.array([[1e4, -1e4]], np.float32), labels(1))
    assert loss == np.float32(2e4)


def test_squared_error_sums_over_values_and_averages_over_the_batch() -> None:
    prediction, target = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 2.0], [1.0, 7.0]])
    assert SquaredError().reference(prediction, target)[0] == (1 + 0 + 4 + 9) / 2
    (grad,) = SquaredErrorGrad().reference(np.array(0.5), prediction, target)
    np.testing.assert_array_equal(grad, [[0.5, 0.0], [1.0, -1.5]])


def test_the_first_maximum_counts() -> None:
    logits = np.array([[1.0, 3.0, 3.0], [1.0, 3.0, 3.0], [2.0, 0.0, 0.0]], np.float32)
    assert CorrectCount().reference(logits, labels(1, 2, 0))[0] == 2.0


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (
            SoftmaxCrossEntropy(),
            (f32(8, 10), TensorType("i32", (7,))),
            r"got i32\[7\] as the labels, but one label per row of the logits f32\[8,10\] needs i32\[8\]",
        ),
        (CorrectCount(), (f32(8, 10), f32(8)), r"got f32\[8\] as the labels, but one label per row"),
        (SoftmaxCrossEntropy(), (f32(8, 1, 1, 10), TensorType("i32", (8,))), r"must have 2 axes \[N,C\]"),
        (SquaredError(), (f32(8, 10), f32(8, 9)), r"the prediction is f32\[8,10\], the target is f32\[8,9\]"),
        (
            SquaredErrorGrad(),
            (f32(1), f32(8, 9), f32(8, 9)),
            r"got f32\[1\] as the loss gradient, but a scalar loss",
        ),
    ],
)
def test_errors(op: Op, types: tuple[TensorType, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*types)
