"""Softmax: probabilities per row, no overflow, the Jacobian of the notes."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.types import f32
from cnnc.ops.softmax import LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad


def test_probabilities_of_a_small_row() -> None:
    x = np.log(np.array([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]]))
    np.testing.assert_allclose(Softmax().reference(x)[0], [[0.125, 0.25, 0.625], [0.25, 0.25, 0.5]])


def test_large_logits_do_not_overflow() -> None:
    (y,) = Softmax().reference(np.array([[1000.0, 0.0, 1000.0]], np.float32))
    np.testing.assert_array_equal(y, [[0.5, 0.0, 0.5]])


def test_normalises_the_channels_of_maps() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 3, 4))
    np.testing.assert_allclose(Softmax().reference(x)[0].sum(axis=1), np.ones((2, 3, 4)))


def test_gradient_is_the_jacobian() -> None:
    p, dy = np.array([0.2, 0.3, 0.5]), np.array([1.0, -2.0, 0.5])
    jacobian = np.diag(p) - np.outer(p, p)
    np.testing.assert_allclose(SoftmaxGrad().reference(dy[None], p[None])[0], (jacobian @ dy)[None])


def test_logarithm_of_softmax() -> None:
    x = np.random.default_rng(1).standard_normal((2, 5, 3, 4))
    np.testing.assert_allclose(LogSoftmax().reference(x)[0], np.log(Softmax().reference(x)[0]))
    (y,) = LogSoftmax().reference(np.array([[1000.0, 0.0]], np.float32))
    np.testing.assert_array_equal(y, [[0.0, -1000.0]])


def test_gradient_of_the_logarithm_is_its_jacobian() -> None:
    p, dy = np.array([0.2, 0.3, 0.5]), np.array([1.0, -2.0, 0.5])
    jacobian = np.eye(3) - np.outer(np.ones(3), p)
    found = LogSoftmaxGrad().reference(dy[None], np.log(p)[None])[0]
    np.testing.assert_allclose(found, (jacobian.T @ dy)[None])


def test_errors() -> None:
    with pytest.raises(
        ShapeError, match=r"got f32\[7\] as the input, which must have a batch and a channel axis"
    ):
        Softmax().infer(f32(7))
    with pytest.raises(
        ShapeError, match=r"got f32\[1,7\] as the result gradient, but the result needs f32\[1,8\]"
    ):
        SoftmaxGrad().infer(f32(1, 7), f32(1, 8))
