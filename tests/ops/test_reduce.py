"""Sums over axes and the broadcast that undoes their shape."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.types import f32
from cnnc.ops.reduce import Broadcast, Sum


def test_sum_drops_the_axes() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    assert Sum((0, 2)).infer(f32(2, 3, 4)) == (f32(3),)
    np.testing.assert_array_equal(Sum((0, 2)).reference(x)[0], np.einsum("abc->b", x))
    assert Sum((0, 1, 2)).reference(x)[0].shape == ()


def test_broadcast_inserts_the_axes() -> None:
    x = np.array([1.0, 2.0, 3.0])
    op = Broadcast((0, 2), (2, 4))
    assert op.infer(f32(3)) == (f32(2, 3, 4),)
    np.testing.assert_array_equal(op.reference(x)[0], np.broadcast_to(x[None, :, None], (2, 3, 4)))


@pytest.mark.parametrize("axes", [(), (1, 0), (0, 0), (3,), (-1,)])
def test_bad_axes(axes: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="axes must be ascending axes of a tensor of 3 axes, got"):
        Sum(axes).infer(f32(2, 3, 4))


def test_sizes_must_match_the_axes() -> None:
    with pytest.raises(ShapeError, match=r"sizes must be 1 integers of at least 1, got \(2,3\)"):
        Broadcast((0,), (2, 3)).infer(f32(4))
