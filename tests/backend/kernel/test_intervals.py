"""Intervals of affine expressions in nests of loops."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.intervals import Interval, Nest
from cnnc.backend.kernel.ir import Affine, For, affine

Bound = Affine | int | tuple[Affine | int, ...]
X, Y = Affine.variable("i"), Affine.variable("j")


def loop(variable: str, starts: Bound, stops: Bound, step: int = 1) -> For:
    first, last = [tuple(map(affine, b)) if isinstance(b, tuple) else (affine(b),) for b in (starts, stops)]
    return For(variable, first, last, step, ())


@pytest.mark.parametrize(
    ("loops", "expression", "interval"),
    [
        ([loop("i", 0, 56)], 2 * X - 1, Interval(-1, 109)),
        ([loop("i", 3, 50, 16)], affine(X), Interval(3, 35)),  # 3, 19, 35
        ([loop("i", (0, 4), (9, 7))], -1 * X, Interval(-6, -4)),
        ([loop("i", 0, 8), loop("j", 0, 8)], X - Y, Interval(-7, 7)),
        ([loop("i", 0, 56), loop("j", (0, 1 - X), (3, 57 - X))], X + Y - 1, Interval(0, 55)),
        ([loop("i", 0, 7), loop("j", 8 * X, (8 * X + 8, 50))], Y, Interval(0, 49)),
        ([loop("i", 0, 7), loop("j", 8 * X, (8 * X + 8, 50))], Y - 8 * X, Interval(0, 7)),
        ([loop("i", 0, 4), loop("j", 8 * X, 8 * X + 8, 3)], Y - 8 * X, Interval(0, 6)),  # 0, 3, 6
    ],
)
def test_intervals(loops: list[For], expression: Affine, interval: Interval) -> None:
    nest = Nest()
    for statement in loops:
        nest = nest.enter(statement)
    assert nest.interval(expression) == interval


@pytest.mark.parametrize(
    ("loops", "empty"),
    [
        ([loop("i", 0, 1)], False),
        ([loop("i", 4, 4)], True),
        ([loop("i", 5, 4, 3)], True),
        ([loop("i", 0, 4), loop("j", X + 1, X + 1)], True),
        ([loop("i", 0, 4), loop("j", X, 4)], False),
        ([loop("i", 0, 4), loop("j", X + 4, 4)], True),
        ([loop("i", 4, 4), loop("j", 0, 9)], True),
    ],
)
def test_loops_that_never_run(loops: list[For], empty: bool) -> None:
    nest = Nest()
    for statement in loops:
        nest = nest.enter(statement)
    assert nest.empty is empty


SMALL = st.integers(-4, 6)


@settings(max_examples=300, deadline=None)
@given(SMALL, SMALL, st.integers(1, 3), SMALL, SMALL, SMALL, SMALL, st.integers(1, 3), SMALL, SMALL)
def test_intervals_hold_every_value(
    first: int,
    stop: int,
    step: int,
    start: int,
    slope: int,
    length: int,
    end: int,
    inner: int,
    a: int,
    b: int,
) -> None:
    """And constant bounds give the exact interval."""
    i = loop("i", first, stop, step)
    j = loop("j", (start, slope * X), (slope * X + length, end), inner)
    nest, expression = Nest().enter(i).enter(j), a * X + b * Y + 1
    values = [
        a * x + b * y + 1
        for x in range(first, stop, step)
        for y in range(max(start, slope * x), min(slope * x + length, end), inner)
    ]
    if nest.empty:
        assert not values
    elif values:
        interval = nest.interval(expression)
        assert interval.low <= min(values) and max(values) <= interval.high
        assert slope != 0 or interval == Interval(min(values), max(values))
