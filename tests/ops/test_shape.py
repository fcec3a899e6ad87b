"""Views, padding, cropping, relayout and constants."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType, f32
from cnnc.ops.shape import Constant, Crop2d, Flatten, Pad2d, Relayout, Reshape


def test_flatten_keeps_the_batch() -> None:
    assert Flatten().infer(f32(64, 16, 5, 5)) == (f32(64, 400),)
    assert Flatten().infer(TensorType("i32", (7,))) == (TensorType("i32", (7, 1)),)


def test_pad_and_crop_are_inverse() -> None:
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    (padded,) = Pad2d((1, 0, 0, 2)).reference(x)
    np.testing.assert_array_equal(padded[0, 0], [[0, 0, 0, 0, 0], [0, 1, 2, 0, 0], [3, 4, 5, 0, 0]])
    np.testing.assert_array_equal(Crop2d((1, 0, 0, 2)).reference(padded)[0], x)


def test_constant_splats_a_single_value() -> None:
    np.testing.assert_array_equal(Constant((2.5,), (2, 2)).reference()[0], np.full((2, 2), 2.5, np.float32))
    np.testing.assert_array_equal(Constant((1.0, 2.0), (2,)).reference()[0], [1.0, 2.0])
    assert Constant((3.0,)).infer() == (f32(),)


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (Flatten(), (f32(),), r"got f32\[\] as the input, which must have a batch axis"),
        (Reshape((2, 3)), (f32(7),), r"the input f32\[7\] has 7 elements, f32\[2,3\] has 6"),
        (Reshape((-1, 7)), (f32(7),), r"shape must be 2 integers of at least 1, got \(-1,7\)"),
        (
            Relayout("abcd", "ab"),
            (f32(1, 2, 3, 4),),
            r"the layout 'ab' is for 2 axes, the input is f32\[1,2,3,4\]",
        ),
        (Relayout("abcd", "a!"), (f32(1, 2, 3, 4),), "malformed layout tag 'a!'"),
        (Pad2d((1, 1, 1, -1)), (f32(1, 1, 2, 2),), "pad must be 4 integers of at least 0"),
        (
            Crop2d((1, 0, 1, 0)),
            (f32(1, 1, 2, 2),),
            r"nothing is left of the 2x2 input when \(1,0,1,0\) is cropped",
        ),
        (Constant((1.0, 2.0), (3,)), (), r"2 values do not fill f32\[3\]; give 1 or 3"),
        (Constant((1.0,), (3,), "f16"), (), "no dtype 'f16'; there are f32, f64, i32"),
    ],
)
def test_errors(op: Op, types: tuple[TensorType, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*types)
