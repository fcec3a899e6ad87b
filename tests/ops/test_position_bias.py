"""A bias per position: added to every image; its gradient is a sum over images."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.types import f32
from cnnc.ops.position_bias import PositionBias


def test_every_image_gets_the_same() -> None:
    x, bias = np.zeros((2, 1, 2, 2)), np.array([[[1.0, 2.0], [3.0, 4.0]]])
    np.testing.assert_array_equal(PositionBias().reference(x, bias)[0], [bias, bias])


def test_another_shape_is_an_error() -> None:
    with pytest.raises(ShapeError, match=r"got f32\[3\] as the bias of f32\[1,3,2,2\]"):
        PositionBias().infer(f32(1, 3, 2, 2), f32(3))
