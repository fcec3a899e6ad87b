"""The constant matrices of Winograd transforms as straight code on vectors, with few instructions.

The Winograd kernels load a tile, apply a matrix along its rows and another along its columns, and store.
Zeros cost nothing and ones no multiplication; a factor common to a sum is carried along and multiplied in
where one needs it. What two rows share (t + u, t - u), or two columns, is computed once. An operand that is
None is zero, as outside the source, and what it would add is not written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import combinations

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.ops.winograd import Tiling
from cnnc.ops.winograd_matrices import Matrix, transposed

Steps = Sequence[Matrix]
"""Matrices to be applied one after the other."""


@dataclass(frozen=True)
class _Scaled:
    """factor * value."""

    factor: Fraction
    value: Vec

    def times(self, factor: Fraction) -> _Scaled:
        return _Scaled(factor if self.factor == 1 else self.factor * factor, self.value)


_Value = _Scaled | None


@dataclass(frozen=True)
class _Step:
    """A matrix, and its rows and its columns that share something."""

    matrix: Matrix
    row_pairs: tuple[tuple[int, int], ...]
    column_pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, matrix: Matrix) -> _Step:
        return cls(matrix, _pairs(matrix), _pairs(transposed(matrix)))


def transform_tile(
    k: KernelBuilder,
    rows: Steps,
    columns: Steps,
    lanes: int,
    load: Callable[[int, int], Vec | None],
    store: Callable[[int, int, Vec], None],
) -> None:
    """rows X columns^T for the tile X that `load(row, column)` gives, handed to `store(row, column, value)`.
    Both are given as the steps whose product they are.

    Columns are loaded one after the other and rows stored so, for few values to be in registers at a time.
    """
    height, width = len(rows[0][0]), len(columns[0][0])
    down, along = [[_Step.of(matrix) for matrix in steps] for steps in (rows, columns)]
    halfway = [_applied(k, down, [_unscaled(load(i, j)) for i in range(height)]) for j in range(width)]
    for i in range(len(rows[-1])):
        results = _applied(k, along, [column[i] for column in halfway])
        for j, result in enumerate(results):
            store(i, j, _written(k, result, lanes))


@cache
def effort(tiling: Tiling, growth: int) -> float:
    """Of transforming a point of a tile, against one of 36: with more points each is a longer sum, and more
    of them do not fit the registers; `growth` is how fast that becomes more. Data that are their own points,
    as odd ones at stride 2, weigh little, but tiles have more data there. Measured at 16, 36 and 49 points,
    and at stride 2 at 25, 81 and 121."""
    weight = math.prod(sum(_weight(row) for row in axis.data) for axis in tiling.axes)
    least = 0.95 if any(axis.is_strided for axis in tiling.axes) else 0.65
    return least + 0.35 * (weight / 36) ** growth


def _weight(row: Sequence[Fraction]) -> float:
    return 1.0 if sum(map(bool, row)) > 1 else 0.2


def _unscaled(value: Vec | None) -> _Value:
    return None if value is None else _Scaled(Fraction(1), value)


def _written(k: KernelBuilder, scaled: _Value, lanes: int) -> Vec:
    """The value with its factor multiplied in."""
    if scaled is None:
        return k.constant(0.0, lanes)
    if scaled.factor == 1:
        return scaled.value
    if scaled.factor == -1:
        return k.constant(0.0, lanes) - scaled.value
    return scaled.value * float(scaled.factor)


def _applied(k: KernelBuilder, steps: Sequence[_Step], values: Sequence[_Value]) -> Sequence[_Value]:
    """The steps times values, the first step first."""
    for step in steps:
        values = _product(k, step, values)
    return values


def _product(k: KernelBuilder, step: _Step, values: Sequence[_Value]) -> list[_Value]:
    """The step's matrix times values, what pairs of rows or of columns share computed once."""
    if step.row_pairs:
        return _by_row_pairs(k, step.matrix, step.row_pairs, values)
    if step.column_pairs:
        return _by_column_pairs(k, step.matrix, step.column_pairs, values)
    return [_combined(k, row, values) for row in step.matrix]


def _by_row_pairs(
    k: KernelBuilder, matrix: Matrix, pairs: Sequence[tuple[int, int]], values: Sequence[_Value]
) -> list[_Value]:
    """Rows t + u and t - u: both from t, where the rows agree, and u, where they differ in sign."""
    zero, one = Fraction(0), Fraction(1)
    results: dict[int, _Value] = {}
    for first, second in pairs:
        both = tuple(zip(matrix[first], matrix[second], strict=True))
        t = _combined(k, [a if a == b else zero for a, b in both], values)
        u = _combined(k, [a if a != b else zero for a, b in both], values)
        results[first] = _combined(k, (one, one), (t, u))
        results[second] = _combined(k, (one, -one), (t, u))
    return [results[i] if i in results else _combined(k, row, values) for i, row in enumerate(matrix)]


def _by_column_pairs(
    k: KernelBuilder, matrix: Matrix, pairs: Sequence[tuple[int, int]], values: Sequence[_Value]
) -> list[_Value]:
    """Columns that agree in some rows and differ in sign in others: by t + u and t - u of their values."""
    zero, one = Fraction(0), Fraction(1)
    paired = {column for pair in pairs for column in pair}
    alone = [column for column in range(len(values)) if column not in paired]
    terms = [values[column] for column in alone]
    coefficients = [[row[column] for column in alone] for row in matrix]
    for first, second in pairs:
        t, u = values[first], values[second]
        terms += [_combined(k, (one, one), (t, u)), _combined(k, (one, -one), (t, u))]
        for entries, row in zip(coefficients, matrix, strict=True):
            agree = row[first] == row[second]
            entries += [row[first], zero] if agree else [zero, row[first]]
    return [_combined(k, entries, terms) for entries in coefficients]


@cache
def _pairs(matrix: Matrix) -> tuple[tuple[int, int], ...]:
    """Pairs of rows whose entries agree up to the sign, the sign being another in some but not in all."""
    found: list[tuple[int, int]] = []
    taken: set[int] = set()
    for first, second in combinations(range(len(matrix)), 2):
        if taken.isdisjoint((first, second)) and set(_signs(matrix[first], matrix[second])) == {1, -1}:
            found.append((first, second))
            taken.update((first, second))
    return tuple(found)


def _signs(first: Sequence[Fraction], second: Sequence[Fraction]) -> Iterator[int]:
    """For places that are not zero in both: 1 for equal entries, -1 for opposite ones, 0 for others."""
    for a, b in zip(first, second, strict=True):
        if a or b:
            yield 1 if a == b else -1 if a == -b else 0


def _combined(k: KernelBuilder, coefficients: Sequence[Fraction], values: Sequence[_Value]) -> _Value:
    """The sum of coefficient * value, its leading term's factor carried along.

    It is led by the first term that leaves the fewest others with a multiplication.
    """
    terms = [v.times(c) for c, v in zip(coefficients, values, strict=True) if v is not None and c]
    if not terms:
        return None

    sizes = [_size(term.factor) for term in terms]
    first = min(range(len(terms)), key=lambda i: (-sizes.count(sizes[i]), terms[i].factor != 1))
    lead, total = terms[first].factor, terms[first].value
    for i, term in enumerate(terms):
        if i == first:
            continue
        if sizes[i] != sizes[first]:
            total = k.fma(term.value, float(term.factor / lead), total)
        elif term.factor == lead:
            total = total + term.value
        else:
            total = total - term.value
    return _Scaled(lead, total)


def _size(factor: Fraction) -> tuple[int, int]:
    """Equal for equal and for opposite factors; compared more quickly than they are."""
    return abs(factor.numerator), factor.denominator
