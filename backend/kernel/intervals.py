"""Interval arithmetic over loop variables: the ranges that bounds.py and conflicts.py reason with.

The largest value of an affine expression is found by eliminating its variables, innermost first: a
variable with a positive coefficient is at most any of its loop's last values, one with a negative
coefficient at least any of its starts, and those are affine in outer variables. Each choice gives a
valid upper bound, the smallest of them is the answer. So in

    for oy in 0..56 { for r in max(0, 1 - oy)..min(3, 57 - oy) { ... x[oy + r - 1] ... } }

`oy + r - 1` is at most oy + 1 (r = 2) and at most 55 (r = 56 - oy), hence at most 55.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.backend.kernel.ir import Affine, For


@dataclass(frozen=True)
class Interval:
    """All integers from `low` to `high`, both included."""

    low: int
    high: int

    def __add__(self, offset: int) -> Interval:
        return Interval(self.low + offset, self.high + offset) if offset else self

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


@dataclass(frozen=True)
class Range:
    """A loop's variable: at least each of `lowers`, at most each of `uppers`, in outer variables."""

    variable: str
    lowers: tuple[Affine, ...]
    uppers: tuple[Affine, ...]

    @classmethod
    def of(cls, loop: For) -> Range:
        starts = loop.starts
        if not any(start.terms for start in starts):
            starts = (Affine(max(start.constant for start in starts)),)
        return cls(loop.variable, starts, tuple(_last(starts, stop, loop.step) for stop in loop.stops))


def _last(starts: tuple[Affine, ...], stop: Affine, step: int) -> Affine:
    """The last value before `stop`: exact where the distance from the one start is a constant."""
    span = stop - starts[0]
    if len(starts) > 1 or span.terms:
        return stop - 1
    return starts[0] + (span.constant - 1) // step * step


class Nest:
    """The loops around a statement, outermost first, and the intervals of expressions inside them."""

    def __init__(self, ranges: tuple[Range, ...] = (), empty: bool = False) -> None:
        self.ranges = ranges
        self.empty = empty
        """No statement inside ever runs: some loop's last value is below its start for all iterations."""
        self._intervals: dict[tuple[tuple[str, int], ...], Interval] = {}

    def enter(self, loop: For) -> Nest:
        """The nest of the statements in `loop`, itself a statement of this nest."""
        inner = Range.of(loop)
        lengths = (self.interval(upper - lower) for upper in inner.uppers for lower in inner.lowers)
        empty = self.empty or any(length.high < 0 for length in lengths)
        return Nest((*self.ranges, inner), empty)

    def interval(self, expression: Affine) -> Interval:
        """An interval that holds every value of `expression` in this nest, which is not empty.

        The constant only shifts it, so expressions that differ in it share one elimination.
        """
        found = self._intervals.get(expression.terms)
        if found is None:
            shape = Affine(0, expression.terms)
            found = Interval(-_highest(-shape, self.ranges), _highest(shape, self.ranges))
            self._intervals[expression.terms] = found
        return found + expression.constant


def _highest(expression: Affine, ranges: tuple[Range, ...]) -> int:
    """The least upper bound that substituting bounds for variables gives, innermost first."""
    if not ranges:
        return expression.constant
    outer, inner = ranges[:-1], ranges[-1]
    coefficient = expression.coefficient(inner.variable)
    if coefficient == 0:
        return _highest(expression, outer)
    bounds = inner.uppers if coefficient > 0 else inner.lowers
    return min(_highest(expression.substitute(inner.variable, bound), outer) for bound in bounds)
