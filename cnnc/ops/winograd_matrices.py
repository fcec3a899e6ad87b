"""The matrices of Winograd's minimal filtering F(m, r), exact.

m results of a filter g of r taps over m + r - 1 data d are A^T [(G g) * (B^T d)]: the product by elements
has m + r - 1 multiplications where the direct method has m r. From Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks" (2016), with the points 0, 1, -1, 2, -2 and infinity, and 1/2 where there are
seven; what has as many points shares B^T. In two dimensions each matrix is applied along rows and along
columns. winograd.py computes with them; the kernels write them out as sums.

At a stride of 2 the taps 0 and 2 meet data of even number only, as F(m, 2) at stride 1, and tap 1 the others:
m + 1 products and m, where the direct method has 3 m.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from operator import mul
from types import MappingProxyType

from cnnc.errors import ShapeError

Matrix = tuple[tuple[Fraction, ...], ...]
"""Rows of equal length."""


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


def transposed(matrix: Matrix) -> Matrix:
    """Its rows as columns."""
    return tuple(zip(*matrix, strict=True))


def _times(left: Matrix, right: Matrix) -> Matrix:
    columns = transposed(right)
    return tuple(tuple(sum(map(mul, row, column), Fraction(0)) for column in columns) for row in left)


def has_algorithm(tile: int, taps: int, stride: int = 1) -> bool:
    """Whether there is F(tile, taps): for one result, and for those of `_FAST`."""
    return tile == 1 or (tile, taps, stride) in _FAST


def algorithm(tile: int, taps: int, stride: int = 1) -> Algorithm:
    """F(tile, taps) at a stride. Raises ShapeError where there is none.

    A tile of one result is the direct method: a product per tap.
    """
    if not has_algorithm(tile, taps, stride):
        steps = f" at a stride of {stride}" if stride > 1 else ""
        raise ShapeError(f"there is no Winograd algorithm for tiles of {tile} under {taps} taps{steps}")
    if tile > 1:
        return _FAST[tile, taps, stride]
    unit = tuple(tuple(Fraction(int(i == j)) for j in range(taps)) for i in range(taps))
    return Algorithm((unit,), unit, ((Fraction(1),) * taps,))


def _matrix(text: str) -> Matrix:
    """Rows separated by commas, entries by blanks."""
    return tuple(tuple(map(Fraction, row.split())) for row in text.split(","))


def _strided(data: Matrix, filter: Matrix, result: Matrix) -> Algorithm:
    """F(m, 3) at a stride of 2 from the matrices of F(m, 2): its points, and behind them the odd data."""
    zero, one, tile = Fraction(0), Fraction(1), len(result)
    odd = tuple(tuple(one if i == j else zero for i in range(tile)) for j in range(tile))
    even = [*data, *((zero,) * len(data),) * tile]
    others = [*((zero,) * tile,) * len(data), *odd]
    return Algorithm(
        (tuple(_alternating(*rows) for rows in zip(even, others, strict=True)),),
        (*((first, zero, last) for first, last in filter), *((zero, one, zero),) * tile),
        tuple(left + right for left, right in zip(result, odd, strict=True)),
    )


def _alternating(even: tuple[Fraction, ...], odd: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """Entries taken from the two in turn; `even` has one more."""
    pairs = zip(even, (*odd, Fraction(0)), strict=True)
    return tuple(entry for pair in pairs for entry in pair)[:-1]


_DATA_AT_SIX = _matrix(
    "4 0 -5 0 1 0, 0 -4 -4 1 1 0, 0 4 -4 -1 1 0, 0 -2 -1 2 1 0, 0 2 -1 -2 1 0, 0 4 0 -5 0 1"
)

_DATA_AT_SEVEN = (
    _matrix(
        "-1/2 1 0 0 0 0 0, 0 -1/2 1 0 0 0 0, 0 0 -1/2 1 0 0 0, 0 0 0 -1/2 1 0 0, 0 0 0 0 -1/2 1 0, "
        "0 0 0 0 0 -1/2 1, 0 4 0 -5 0 1 0"
    ),
    _matrix(
        "4 0 -5 0 1 0 0, 0 -4 -4 1 1 0 0, 0 4 -4 -1 1 0 0, 0 -2 -1 2 1 0 0, 0 2 -1 -2 1 0 0, "
        "0 0 0 0 0 0 1, 0 4 0 -5 0 1 0"
    ),
)
"""The polynomials of all points but 1/2 share the factor x - 1/2, the first step; the rest is as at six."""

_FAST: Mapping[tuple[int, int, int], Algorithm] = MappingProxyType(
    {
        (2, 3, 1): Algorithm(
            (_matrix("1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1"),),
            _matrix("1 0 0, 1/2 1/2 1/2, 1/2 -1/2 1/2, 0 0 1"),
            _matrix("1 1 1 0, 0 1 -1 -1"),
        ),
        (4, 3, 1): Algorithm(
            (_DATA_AT_SIX,),
            _matrix("1/4 0 0, -1/6 -1/6 -1/6, -1/6 1/6 -1/6, 1/24 1/12 1/6, 1/24 -1/12 1/6, 0 0 1"),
            _matrix("1 1 1 1 1 0, 0 1 -1 2 -2 0, 0 1 1 4 4 0, 0 1 -1 8 -8 1"),
        ),
        (5, 3, 1): Algorithm(
            _DATA_AT_SEVEN,
            _matrix(
                "-1/2 0 0, -1/3 -1/3 -1/3, 1/9 -1/9 1/9, 1/36 1/18 1/9, -1/60 1/30 -1/15, "
                "32/45 16/45 8/45, 0 0 1"
            ),
            _matrix(
                "1 1 1 1 1 1 0, 0 1 -1 2 -2 1/2 0, 0 1 1 4 4 1/4 0, 0 1 -1 8 -8 1/8 0, 0 1 1 16 16 1/16 1"
            ),
        ),
        (2, 5, 1): Algorithm(
            (_DATA_AT_SIX,),
            _matrix(
                "1/4 0 0 0 0, -1/6 -1/6 -1/6 -1/6 -1/6, -1/6 1/6 -1/6 1/6 -1/6, "
                "1/24 1/12 1/6 1/3 2/3, 1/24 -1/12 1/6 -1/3 2/3, 0 0 0 0 1"
            ),
            _matrix("1 1 1 1 1 0, 0 1 -1 2 -2 1"),
        ),
        (2, 3, 2): _strided(
            _matrix("-1 1 0, 0 1 0, 0 -1 1"),
            _matrix("-1 0, 1 1, 0 1"),
            _matrix("1 1 0, 0 1 1"),
        ),
        (4, 3, 2): _strided(
            _matrix("2 -1 -2 1 0, 0 -2 -1 1 0, 0 2 -3 1 0, 0 -1 0 1 0, 0 2 -1 -2 1"),
            _matrix("1/2 0, -1/2 -1/2, -1/6 1/6, 1/6 1/3, 0 1"),
            _matrix("1 1 1 1 0, 0 1 -1 2 0, 0 1 1 4 0, 0 1 -1 8 1"),
        ),
        (5, 3, 2): _strided(
            _DATA_AT_SIX,
            _matrix("1/4 0, -1/6 -1/6, -1/6 1/6, 1/24 1/12, 1/24 -1/12, 0 1"),
            _matrix("1 1 1 1 1 0, 0 1 -1 2 -2 0, 0 1 1 4 4 0, 0 1 -1 8 -8 0, 0 1 1 16 16 1"),
        ),
    }
)
"""By tile, taps and stride."""
