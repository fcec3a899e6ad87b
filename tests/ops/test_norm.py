"""Batch normalization by given statistics and by the batch's, the cost of its gradient, and mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.types import f32
from cnnc.ops.elementwise import Elementwise
from cnnc.ops.norm import BatchNorm, BatchNormTrain, BatchStatistics, ScaleMaps


def test_by_given_statistics() -> None:
    x = np.array([[[[3.0, 5.0]], [[1.0, 1.0]]]])
    weight, bias, mean, variance = np.array([[2.0, 3.0], [0.5, 7.0], [1.0, 1.0], [4.0, 9.0]])
    (y,) = BatchNorm(eps=0.0).reference(x, weight, bias, mean, variance)
    np.testing.assert_allclose(y, [[[[2.5, 4.5]], [[7.0, 7.0]]]])


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (9, 3)])
def test_by_the_batch(shape: tuple[int, ...]) -> None:
    """Channels get the bias as mean and the weight as deviation."""
    x = np.random.default_rng(0).normal(100.0, 3.0, shape)
    weight, bias = np.array([1.0, 2.0, 0.5]), np.array([0.0, -1.0, 4.0])
    (y,) = BatchNormTrain(eps=0.0).reference(x, weight, bias)
    axes = (0, *range(2, x.ndim))
    np.testing.assert_allclose(y.mean(axes), bias, atol=1e-12)
    np.testing.assert_allclose(y.std(axes), weight)


def test_the_gradient_by_the_input_is_one_elementwise_node() -> None:
    """So that it costs one pass over memory behind the sums."""
    b, op = GraphBuilder("g"), BatchNormTrain()
    operands = (b.input("x", f32(2, 3, 5, 5)), b.input("weight", f32(3)), b.input("bias", f32(3)))
    dy, y = b.input("dy", operands[0].type), b.emit(op, *operands)
    b.build(v for v in op.grad(b, operands, (y,), (dy,)) if v is not None)
    backward = b.build(()).nodes[1:]
    of_full_size = [node for node in backward if node.results[0].type == y.type]
    assert [isinstance(node.op, Elementwise) for node in of_full_size] == [True]


def test_mistakes_are_named() -> None:
    c = f32(3)
    with pytest.raises(ShapeError, match=r"f32\[2,3,4\] as the input, which must have axes \[N,C\] or"):
        BatchNorm().infer(f32(2, 3, 4), c, c, c, c)
    with pytest.raises(ShapeError, match=r"f32\[4\] as the mean, but the input f32\[2,3\] needs f32\[3\]"):
        BatchNorm().infer(f32(2, 3), c, c, f32(4), c)
    with pytest.raises(ShapeError, match="statistics of a batch need several values in a channel"):
        BatchStatistics().infer(f32(1, 3, 1, 1))
    with pytest.raises(ShapeError, match="which has no axis 2"):
        ScaleMaps(2).infer(f32(5, 3), c)
    with pytest.raises(ShapeError, match=r"f32\[3\] as the scale, but the weight f32\[5,3\] needs f32\[5\]"):
        ScaleMaps(0).infer(f32(5, 3), c)
