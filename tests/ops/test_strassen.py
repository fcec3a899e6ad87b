"""Strassen's products are those of the matrices."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType, f32
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.strassen import PRODUCTS, StrassenConv2d, StrassenWeightGrad, StrassenWeights

SIZES = [(1, 1), (1, 2), (7, 7), (5, 4)]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@pytest.mark.parametrize("size", SIZES)
def test_the_convolution(size: tuple[int, int]) -> None:
    x, w = random(3, 10, *size), random(6, 10, 1, 1)
    (found,) = StrassenConv2d().reference(x, *StrassenWeights().reference(w))
    np.testing.assert_allclose(found, Conv2d().reference(x, w)[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_its_input_gradient(size: tuple[int, int]) -> None:
    dy, w = random(2, 6, *size), random(6, 10, 1, 1)
    (found,) = StrassenConv2d().reference(dy, *StrassenWeights(flipped=True).reference(w))
    np.testing.assert_allclose(found, Conv2dInputGrad(size=size).reference(dy, w)[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_its_weight_gradient(size: tuple[int, int]) -> None:
    dy, x = random(3, 6, *size), random(3, 10, *size)
    (found,) = StrassenWeightGrad().reference(dy, x)
    np.testing.assert_allclose(found, Conv2dWeightGrad().reference(dy, x)[0], rtol=0, atol=1e-13)


def test_errors_in_single_precision_stay_small() -> None:
    x, w = random(1, 512, 14, 14), random(64, 512, 1, 1)
    exact = Conv2d().reference(x, w)[0]
    single = x.astype(np.float32), w.astype(np.float32)
    (found,) = StrassenConv2d().reference(single[0], *StrassenWeights().reference(single[1]))
    assert np.abs(found - exact).max() < 3e-6 * np.abs(exact).max()


def test_macs_are_those_of_the_direct_method() -> None:
    x, u = f32(2, 8, 5, 5), f32(PRODUCTS, 4, 3)
    assert StrassenConv2d().macs(x, u) == Conv2d().macs(x, f32(6, 8, 1, 1))
    dy = f32(2, 6, 5, 5)
    assert StrassenWeightGrad().macs(dy, x) == Conv2dWeightGrad().macs(dy, x)


@pytest.mark.parametrize(
    ("op", "operands", "message"),
    [
        (StrassenWeights(), (f32(5, 4, 1, 1),), "5 maps cannot be cut into halves"),
        (StrassenWeights(), (f32(4, 5, 1, 1),), "5 channels cannot be cut into halves"),
        (StrassenWeights(), (f32(4, 4, 3, 3),), "has more taps than one"),
        (StrassenConv2d(), (f32(1, 8, 2, 2), f32(7, 3, 2)), r"f32\[7,3,2\]"),
        (StrassenConv2d(), (f32(1, 7, 2, 2), f32(7, 3, 2)), "7 channels cannot be cut into halves"),
        (StrassenWeightGrad(), (f32(1, 7, 2, 2), f32(1, 8, 2, 2)), "7 maps cannot be cut into halves"),
        (StrassenWeightGrad(), (f32(1, 8, 2, 2), f32(1, 7, 2, 2)), "7 channels cannot be cut into halves"),
        (StrassenWeightGrad(), (f32(1, 8, 2, 3), f32(1, 8, 2, 2)), "the 1x1 convolution of"),
    ],
)
def test_other_shapes_are_refused(op: Op, operands: tuple[TensorType, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*operands)


def test_there_is_no_derivative() -> None:
    b = GraphBuilder("net")
    x, u = b.input("x", f32(1, 2, 1, 1)), b.param("u", f32(PRODUCTS, 1, 1))
    y = b.emit(StrassenConv2d(), x, u)
    with pytest.raises(UnsupportedError, match="strassen_conv2d has no derivative"):
        StrassenConv2d().grad(b, [x, u], [y], [y])
