"""The kernel language's functions on float32, above all the single rounding of fma."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.arithmetic import ARITHMETIC, F32, fma, reduce_lanes
from cnnc.backend.kernel.ir import FUNCTIONS

NAN, INF = float("nan"), float("inf")
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def f32(*values: float) -> F32:
    return np.array(values, np.float32)


def rounded(value: Fraction) -> float:
    """The float32 nearest to an exact value, ties to even."""
    with np.errstate(all="ignore"):
        guess = f32(float(value))
        around = [guess, np.nextafter(guess, f32(-INF)), np.nextafter(guess, f32(INF))]
    finite = [float(g[0]) for g in around if np.isfinite(g[0])]
    even = [int(f32(g).view(np.int32)[0]) & 1 for g in finite]
    return min(zip(finite, even, strict=True), key=lambda pair: (abs(Fraction(pair[0]) - value), pair[1]))[0]


@settings(max_examples=400, deadline=None)
@given(FLOATS, FLOATS, FLOATS)
@example(1 + 2**-12, 1 + 2**-12, 2.0**-60)  # a tie in float64 that the addend breaks
@example(1 + 2**-12, 1 + 2**-12, -(2.0**-60))
@example(-1 - 2**-12, 1 + 2**-12, 2.0**-60)
@example(2.0**-100, 2.0**-49, 2.0**-126)  # a tie between denormal numbers
def test_fma_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    with np.errstate(all="ignore"):
        result = float(fma(f32(a), f32(b), f32(c))[0])
    if np.isfinite(result):
        assert result == rounded(exact)
    else:
        assert abs(exact) >= Fraction(2) ** 128 - Fraction(2) ** 103


def test_fma_of_special_values() -> None:
    with np.errstate(all="ignore"):
        result = fma(
            f32(INF, INF, NAN, 3e38, 0.0), f32(1.0, 0.0, 1.0, 3e38, 5.0), f32(2.0, 1.0, 1.0, 0.0, -0.0)
        )
    np.testing.assert_array_equal(result, f32(INF, NAN, NAN, INF, 0.0))


@pytest.mark.parametrize(
    ("function", "operands", "result"),
    [
        ("copy", [(-0.0, 2.0)], (-0.0, 2.0)),
        ("add", [(1.0, 2.0), (0.5, -2.0)], (1.5, 0.0)),
        ("sub", [(1.0, 2.0), (0.5, -2.0)], (0.5, 4.0)),
        ("mul", [(3.0, 2.0), (0.5, -2.0)], (1.5, -4.0)),
        ("div", [(1.0, 1.0), (4.0, 0.0)], (0.25, INF)),
        ("max", [(1.0, NAN, 1.0, -0.0), (2.0, 1.0, NAN, 0.0)], (2.0, 1.0, NAN, 0.0)),
        ("min", [(1.0, NAN, 1.0, 0.0), (2.0, 1.0, NAN, -0.0)], (1.0, 1.0, NAN, -0.0)),
        ("fma", [(2.0,), (3.0,), (1.0,)], (7.0,)),
        ("sqrt", [(9.0, -1.0)], (3.0, NAN)),
        ("round", [(0.5, 1.5, -2.5, 2.6)], (0.0, 2.0, -2.0, 3.0)),
        ("exp2i", [(-126.0, 0.0, 127.0)], (2.0**-126, 1.0, 2.0**127)),
        ("exponent", [(1.0, 0.75, 2.0**-126, 3e38)], (0.0, -1.0, -126.0, 127.0)),
        ("mantissa", [(1.0, 0.75, 2.0**-126, 6.0)], (1.0, 1.5, 1.0, 1.5)),
        ("select_lt", [(1.0, 2.0, NAN), (2.0, 2.0, 1.0), (7.0, 7.0, 7.0), (8.0, 8.0, 8.0)], (7.0, 8.0, 8.0)),
        ("select_eq", [(1.0, 2.0, NAN), (2.0, 2.0, NAN), (7.0, 7.0, 7.0), (8.0, 8.0, 8.0)], (8.0, 7.0, 8.0)),
    ],
)
def test_functions(function: str, operands: list[tuple[float, ...]], result: tuple[float, ...]) -> None:
    with np.errstate(all="ignore"):
        found = ARITHMETIC[function](*[f32(*values) for values in operands])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, f32(*result))
    signed = ~np.isnan(found)
    np.testing.assert_array_equal(np.signbit(found[signed]), np.signbit(f32(*result)[signed]))


def test_every_function_of_the_language_is_there() -> None:
    assert ARITHMETIC.keys() == FUNCTIONS.keys()


def test_reductions_pair_lane_l_with_lane_l_plus_half() -> None:
    big, one = 2.0**24, 1.0
    assert reduce_lanes("add", f32(big, one, -big, one)) == f32(2.0)  # (big - big) + (1 + 1)
    assert reduce_lanes("add", f32(big, -big, one, one)) == f32(
        1.0
    )  # big + 1 rounds to big, 1 - big is exact
    assert reduce_lanes("max", f32(3.0, 9.0, -1.0, 2.0)) == f32(9.0)
    assert reduce_lanes("min", f32(3.0, 9.0, -1.0, 2.0)) == f32(-1.0)
    assert reduce_lanes("add", f32(5.0)) == f32(5.0)
