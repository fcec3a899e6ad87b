"""The matrices of Winograd's minimal filtering F(m, 3), exact.

m results of a 3-tap filter g over m + 2 data d are A^T [(G g) * (B^T d)]: the product by elements has m + 2
multiplications where the direct method has 3m. From Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks" (2016), with the points 0, 1, -1, 2, -2 and infinity. In two dimensions each matrix is
applied along rows and along columns. winograd.py computes with them; the kernels write them out as sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from cnnc.errors import ShapeError

Matrix = tuple[tuple[Fraction, ...], ...]
"""Rows of equal length."""

TAPS = 3
"""Length of a filter that has a fast algorithm."""

TILE_SIZES = (1, 2, 4)
"""Results of a tile along an axis where the filter has `TAPS` taps."""


@dataclass(frozen=True)
class Algorithm:
    """F(m, r) along one axis: `data` is B^T [n,n], `filter` is G [n,r], `result` is A^T [m,n]; n = m + r - 1.

    Gradients take the same matrices transposed: A along a gradient of the results, G^T of the products.
    """

    data: Matrix
    filter: Matrix
    result: Matrix

    @property
    def points(self) -> int:
        """n: products along this axis, and data a tile reads."""
        return len(self.data)


def transposed(matrix: Matrix) -> Matrix:
    """Its rows as columns."""
    return tuple(zip(*matrix, strict=True))


def algorithm(tile: int, taps: int) -> Algorithm:
    """F(tile, taps). Raises ShapeError where there is none: tiles of 1, 2 or 4 for 3 taps, of 1 for one tap.

    A tile of one result is the direct method: a product per tap.
    """
    if taps not in (1, TAPS) or tile not in (TILE_SIZES if taps == TAPS else (1,)):
        raise ShapeError(f"there is no Winograd algorithm for tiles of {tile} under {taps} taps")
    if tile == 1:
        unit = tuple(tuple(Fraction(int(i == j)) for j in range(taps)) for i in range(taps))
        return Algorithm(unit, unit, ((Fraction(1),) * taps,))
    return _OF_2 if tile == 2 else _OF_4


def _matrix(text: str) -> Matrix:
    """Rows separated by commas, entries by blanks."""
    return tuple(tuple(map(Fraction, row.split())) for row in text.split(","))


_OF_2 = Algorithm(
    _matrix("1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1"),
    _matrix("1 0 0, 1/2 1/2 1/2, 1/2 -1/2 1/2, 0 0 1"),
    _matrix("1 1 1 0, 0 1 -1 -1"),
)

_OF_4 = Algorithm(
    _matrix("4 0 -5 0 1 0, 0 -4 -4 1 1 0, 0 4 -4 -1 1 0, 0 -2 -1 2 1 0, 0 2 -1 -2 1 0, 0 4 0 -5 0 1"),
    _matrix("1/4 0 0, -1/6 -1/6 -1/6, -1/6 1/6 -1/6, 1/24 1/12 1/6, 1/24 -1/12 1/6, 0 0 1"),
    _matrix("1 1 1 1 1 0, 0 1 -1 2 -2 0, 0 1 1 4 4 0, 0 1 -1 8 -8 1"),
)
