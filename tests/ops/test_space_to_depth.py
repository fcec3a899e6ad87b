"""Neighbouring pixels as channels, and back."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType, f32
from cnnc.ops.conv import Conv2d
from cnnc.ops.space_to_depth import DepthToSpace, SpaceToDepth


def test_pixels_of_a_block_become_channels() -> None:
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    (y,) = SpaceToDepth((2, 2)).reference(x)
    np.testing.assert_array_equal(y[0, :, 0, 0], [0, 1, 4, 5])
    np.testing.assert_array_equal(y[0, :, 1, 1], [10, 11, 14, 15])


def test_channels_stay_together_and_padding_is_zero() -> None:
    x = np.arange(1.0, 7.0).reshape(1, 2, 1, 3)
    (y,) = SpaceToDepth((1, 2), (0, 1, 0, 0)).reference(x)
    np.testing.assert_array_equal(y[0, :, 0], [[0, 2], [1, 3], [0, 5], [4, 6]])


@pytest.mark.parametrize(
    "op", [SpaceToDepth((2, 3), (1, 0, 2, 4)), SpaceToDepth((1, 1)), SpaceToDepth((3, 1))]
)
def test_the_two_are_inverse(op: SpaceToDepth) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 5))
    np.testing.assert_array_equal(DepthToSpace(op.block, op.pad).reference(*op.reference(x))[0], x)


def test_a_convolution_as_wide_as_its_steps_is_one_of_blocks() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 3, 8, 12)), rng.standard_normal((5, 3, 4, 6))
    steps = SpaceToDepth((2, 3))
    (y,) = Conv2d().reference(*steps.reference(x), *steps.reference(w))
    np.testing.assert_allclose(y, Conv2d((2, 3)).reference(x, w)[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("op", "x", "message"),
    [
        (SpaceToDepth((2, 2)), f32(1, 1, 5, 4), "blocks of 2x2 do not divide the 5x4 padded input"),
        (SpaceToDepth((2, 0)), f32(1, 1, 4, 4), r"block must be 2 integers of at least 1, got \(2,0\)"),
        (SpaceToDepth((2, 2)), f32(4, 4), r"must have 4 axes \[N,C,H,W\]"),
        (
            DepthToSpace((2, 2)),
            f32(1, 6, 4, 4),
            r"the 6 channels of f32\[1,6,4,4\] do not fill blocks of 2x2",
        ),
        (
            DepthToSpace((2, 2), (1, 0, 1, 0)),
            f32(1, 4, 1, 1),
            r"nothing is left of 2x2 pixels when \(1,0,1,0\)",
        ),
    ],
)
def test_errors(op: Op, x: TensorType, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(x)
