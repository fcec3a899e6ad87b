"""The matrices of Winograd's minimal filtering F(m, r), exact.

m results of a filter g of r taps over m + r - 1 data d are A^T [(G g) * (B^T d)]: the product by elements
has m + r - 1 multiplications where the direct method has m r. From Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks" (2016), which follow Toom and Cook: G and A^T evaluate polynomials at points,
B^T interpolates. In two dimensions each matrix is applied along rows and along columns. winograd.py computes
with them; the kernels write them out as sums.

The points come in one order, so that a smaller tile has the first of a larger one's. A tile of which fewer
results are wanted does without the last points: `Algorithm.cut`.

At a stride of 2 the taps 0 and 2 meet data of even number only, as F(m, 2) at stride 1, and tap 1 the others:
m + 1 products and m, where the direct method has 3 m.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property, reduce
from math import prod
from operator import mul

from cnnc.errors import ShapeError

Matrix = tuple[tuple[Fraction, ...], ...]
"""Rows of equal length."""

INFINITY = None

_POINTS = (Fraction(0), Fraction(1), INFINITY, Fraction(-1), Fraction(2), Fraction(-2), Fraction(1, 2))
"""At infinity a polynomial has the value of its leading coefficient."""

_FAST = frozenset(
    {
        *((2, 3, 1), (4, 3, 1), (5, 3, 1), (2, 4, 1), (4, 4, 1), (2, 5, 1), (3, 5, 1)),
        *((2, 3, 2), (4, 3, 2), (5, 3, 2)),
    }
)
"""Tiles, taps and strides."""


@dataclass(frozen=True)
class Algorithm:
    """F(m, r) along one axis: `data` is B^T [n,n], `filter` is G [n,r], `result` is A^T [m,n]. At stride 1
    there are n = m + r - 1 points, and n data lie under m results at any stride.

    `data_steps` are matrices whose product is B^T, the first to be applied first: together they cost less.
    Gradients take the same matrices transposed: A along a gradient of the results, G^T of the products.
    """

    data_steps: tuple[Matrix, ...]
    filter: Matrix
    result: Matrix

    @cached_property
    def data(self) -> Matrix:
        return reduce(lambda done, step: _times(step, done), self.data_steps)

    @property
    def points(self) -> int:
        """n: products along this axis, and data a tile reads."""
        return len(self.filter)

    @property
    def is_strided(self) -> bool:
        """Whether results are further apart than data."""
        return self.points > len(self.result) + len(self.filter[0]) - 1

    def cut(self, results: int) -> Algorithm:
        """The first results alone, from the first of the data and by the first of the products: filters are
        transformed as they are for all results. At stride 1."""
        assert not self.is_strided and 0 < results <= len(self.result)
        count = results + len(self.filter[0]) - 1
        if count == self.points:
            return self
        return Algorithm((_data(count, self.points),), self.filter[:count], _powers(count, results))


def transposed(matrix: Matrix) -> Matrix:
    """Its rows as columns."""
    return tuple(zip(*matrix, strict=True))


def _times(left: Matrix, right: Matrix) -> Matrix:
    columns = transposed(right)
    return tuple(tuple(sum(map(mul, row, column), Fraction(0)) for column in columns) for row in left)


def has_algorithm(tile: int, taps: int, stride: int = 1) -> bool:
    """Whether there is F(tile, taps): for one result, and for those of `_FAST`."""
    return tile == 1 or (tile, taps, stride) in _FAST


@cache
def algorithm(tile: int, taps: int, stride: int = 1) -> Algorithm:
    """F(tile, taps) at a stride. Raises ShapeError where there is none.

    A tile of one result is the direct method: a product per tap.
    """
    if not has_algorithm(tile, taps, stride):
        steps = f" at a stride of {stride}" if stride > 1 else ""
        raise ShapeError(f"there is no Winograd algorithm for tiles of {tile} under {taps} taps{steps}")
    if tile == 1:
        return Algorithm((_unit(taps),), _unit(taps), ((Fraction(1),) * taps,))
    return _strided(_by_points(tile, 2)) if stride == 2 else _by_points(tile, taps)


def _by_points(tile: int, taps: int) -> Algorithm:
    """F(tile, taps). The filter takes the factors of the interpolation, which leaves few in B^T."""
    count = tile + taps - 1
    factors = [Fraction(1) if a is INFINITY else 1 / _distance(a, count) for a in _POINTS[:count]]
    powers = transposed(_powers(count, taps))
    filter = tuple(tuple(f * x for x in row) for f, row in zip(factors, powers, strict=True))
    steps = _data_in_two_steps(count) if count == len(_POINTS) else (_data(count, count),)
    return Algorithm(steps, filter, _powers(count, tile))


def _powers(count: int, length: int) -> Matrix:
    """[length,count]: the powers of the first points, by which the coefficients of a polynomial are
    multiplied."""
    last = tuple(Fraction(int(k == length - 1)) for k in range(length))
    points = _POINTS[:count]
    return transposed(tuple(last if a is INFINITY else tuple(a**k for k in range(length)) for a in points))


def _distance(point: Fraction, count: int) -> Fraction:
    """The product of the differences between a point and the others of the first `count`."""
    return prod((point - a for a in _POINTS[:count] if a is not INFINITY and a != point), start=Fraction(1))


def _data(count: int, points: int) -> Matrix:
    """B^T of the first `count` points for filters transformed at `points` points: a row has the coefficients
    of the polynomial that is zero at all points but its own, times the factors missing in the filter."""
    rows = []
    for own in _POINTS[:count]:
        factor = Fraction(1) if own is INFINITY else _distance(own, points) / _distance(own, count)
        coefficients = [factor]
        for root in (a for a in _POINTS[:count] if a is not INFINITY and a != own):
            lower, upper = [*coefficients, Fraction(0)], [Fraction(0), *coefficients]
            coefficients = [high - root * low for low, high in zip(lower, upper, strict=True)]
        rows.append((*coefficients, *[Fraction(0)] * (count - len(coefficients))))
    return tuple(rows)


def _data_in_two_steps(count: int) -> tuple[Matrix, Matrix]:
    """The polynomials of all points but the last share a factor x - a with it, the first step; the rest is
    as with a point less. The last point's own polynomial is that of infinity there."""
    rest, last, zero = _data(count - 1, count - 1), _POINTS[count - 1], Fraction(0)
    assert last is not INFINITY
    own = (*rest[_POINTS.index(INFINITY)], zero)
    first = tuple((*[zero] * i, -last, Fraction(1), *[zero] * (count - 2 - i)) for i in range(count - 1))
    unit = (*[zero] * (count - 1), Fraction(1))
    return (*first, own), (*((*row, zero) for row in rest), unit)


def _unit(size: int) -> Matrix:
    return tuple(tuple(Fraction(int(i == j)) for j in range(size)) for i in range(size))


def _strided(even: Algorithm) -> Algorithm:
    """F(m, 3) at a stride of 2 from F(m, 2): its points, and behind them the odd data."""
    zero, one, tile = Fraction(0), Fraction(1), len(even.result)
    of_even = [*even.data, *((zero,) * even.points,) * tile]
    of_odd = [*((zero,) * tile,) * even.points, *_unit(tile)]
    return Algorithm(
        (tuple(_alternating(*rows) for rows in zip(of_even, of_odd, strict=True)),),
        (*((first, zero, last) for first, last in even.filter), *((zero, one, zero),) * tile),
        tuple(left + right for left, right in zip(even.result, _unit(tile), strict=True)),
    )


def _alternating(even: tuple[Fraction, ...], odd: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """Entries taken from the two in turn; `even` has one more."""
    pairs = zip(even, (*odd, Fraction(0)), strict=True)
    return tuple(entry for pair in pairs for entry in pair)[:-1]
