"""Concatenation and slices: values, types, and each as the other's derivative."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.types import TensorType, f32
from cnnc.ops.concat import Concat, Slice


def test_slices_take_a_concatenation_apart() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 1, 4, 5))
    (joined,) = Concat().reference(x, y)
    assert joined.shape == (2, 4, 4, 5)
    np.testing.assert_array_equal(Slice(1, 0, 3).reference(joined)[0], x)
    np.testing.assert_array_equal(Slice(1, 3, 1).reference(joined)[0], y)


def test_the_gradient_of_a_concatenation_is_its_slices() -> None:
    b = GraphBuilder("g")
    x, y, dy = b.input("x", f32(1, 2, 3, 3)), b.input("y", f32(1, 5, 3, 3)), b.input("dy", f32(1, 7, 3, 3))
    Concat().grad(b, [x, y], [], [dy])
    assert [n.op for n in b.build([]).nodes] == [Slice(1, 0, 2), Slice(1, 2, 5)]


def test_the_gradient_of_a_slice_has_zeros_around_it() -> None:
    b = GraphBuilder("g")
    x, dy = b.input("x", f32(7, 2)), b.input("dy", f32(7, 1))
    assert [n.op.name for n in b.build(Slice(1, 0, 1).grad(b, [x], [], [dy])).nodes] == ["constant", "concat"]
    whole = b.input("whole", f32(7, 2))
    assert Slice(1, 0, 2).grad(b, [x], [], [whole]) == (whole,)


@pytest.mark.parametrize(
    ("op", "operands", "message"),
    [
        (Concat(), (f32(1, 2),), "takes two operands or more, got 1"),
        (Concat(), (f32(1, 2), f32(2, 2)), "operand 1 is f32[2,2]; but for axis 1 it must be f32[1,2]"),
        (Concat(2), (f32(1, 2), f32(1, 2)), "got f32[1,2] as an operand, which has no axis 2"),
        (Slice(1, 2, 3), (f32(1, 4),), "the input f32[1,4] has no elements 2 to 4 along axis 1"),
        (Slice(1, 2, 0), (f32(1, 4),), "the input f32[1,4] has no elements 2 to 1 along axis 1"),
    ],
)
def test_what_does_not_fit(op: Concat | Slice, operands: tuple[TensorType, ...], message: str) -> None:
    with pytest.raises(ShapeError) as error:
        op.infer(*operands)
    assert error.value.message == message
