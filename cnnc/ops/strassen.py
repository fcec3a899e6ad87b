"""Matrix products by Strassen's method: convolutions of one tap, pixels being rows and channels columns.

Rows, channels and maps are each cut into halves; of the eight products of halves seven suffice, of sums of
halves (Strassen, "Gaussian Elimination is not Optimal", 1969; here in Winograd's variant, whose fifteen
additions are the fewest):

    S1 = A21 + A22   S2 = S1 - A11   S3 = A11 - A21   S4 = A12 - S2
    T1 = B12 - B11   T2 = B22 - T1   T3 = B22 - B12   T4 = B21 - T2
    C11 = A11 B11 + A12 B21          U3 = A11 B11 + S2 T2 + S3 T3
    C21 = U3 + A22 T4                C22 = U3 + S1 T1
    C12 = A11 B11 + S2 T2 + S1 T1 + S4 B22

A are pixels by channels, B the weights, C the result; the first index counts rows. An odd row is given a
partner of zeros. Of a weight gradient A are channels by pixels, B pixels by maps; there the odd one is among
what both have in common. passes/choose_algorithms.py puts these ops in the place of convolutions and their
gradients, behind the derivative: they have none of their own. Errors grow by a small factor, and are small
beside the largest elements of a product, not beside each (Higham, "Accuracy and Stability of Numerical
Algorithms", chapter 23).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError
from cnnc.ir.op import Sample, Trait
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_rank, expect_type, take_floats
from cnnc.ops.no_derivative import NoDerivative
from cnnc.ops.samples import LinkedSample

PRODUCTS = 7
"""In the order of the weights: A11 B11, A12 B21, S2 T2, S3 T3, A22 T4, S1 T1, S4 B22."""

_Quarters = tuple[tuple[Array, Array], tuple[Array, Array]]
"""Of a matrix: of its upper half of rows, then of the lower."""


def _halves(size: int, what: str) -> int:
    if size % 2:
        raise ShapeError(f"{size} {what} cannot be cut into halves")
    return size // 2


@dataclass(frozen=True)
class StrassenWeights(NoDerivative):
    """w [O,I,1,1] -> u [7,I/2,O/2], the halves of the weights and their sums.

    `flipped` weights are those of an input gradient: [7,O/2,I/2] of the matrix turned.
    """

    name: ClassVar[str] = "strassen_weights"
    flipped: bool = False

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (w,) = take_floats(operands, "weight")
        expect_rank("weight", w, "O,I,1,1")
        if w.shape[2:] != (1, 1):
            raise ShapeError(f"the weight {w} has more taps than one")
        outputs, inputs = _halves(w.shape[0], "maps"), _halves(w.shape[1], "channels")
        return (TensorType(w.dtype, (PRODUCTS, *((outputs, inputs) if self.flipped else (inputs, outputs)))),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        matrix = operands[0][:, :, 0, 0]
        return (_right(_quarters(matrix if self.flipped else matrix.T)),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for _, w in _CASES:
            yield Sample(cls(), (f32(*w),))
            yield Sample(cls(flipped=True), (f32(*w),))


@dataclass(frozen=True)
class StrassenConv2d(NoDerivative):
    """x [N,C,H,W], u [7,C/2,K/2] -> y [N,K,H,W], the convolution by the weights that u was made of."""

    name: ClassVar[str] = "strassen_conv2d"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION, Trait.EPILOGUE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, u = take_floats(operands, "input", "weight halves")
        expect_rank("input", x, "N,C,H,W")
        expect_rank("weight halves", u, "P,C,K")
        needed = TensorType(u.dtype, (PRODUCTS, _halves(x.shape[1], "channels"), u.shape[2]))
        expect_type("weight halves", u, needed, f"the convolution of {x}")
        return (TensorType(x.dtype, (x.shape[0], 2 * u.shape[2], *x.shape[2:])),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        x, u = operands
        rows = np.ascontiguousarray(np.moveaxis(x.reshape(*x.shape[:2], -1), 1, 2))
        y = np.stack([self._product(image, u) for image in rows])
        return (np.ascontiguousarray(np.moveaxis(y, 1, 2)).reshape(x.shape[0], -1, *x.shape[2:]),)

    def _product(self, rows: Array, u: Array) -> Array:
        """[P,C] by [7,C/2,K/2] -> [P,K], the pixels of one image."""
        factors = _left(_quarters(_paired(rows)))
        products = np.zeros((PRODUCTS, factors.shape[1], u.shape[2]), rows.dtype)
        for channel in range(u.shape[1]):  # in order, for how BLAS sums few rows depends on where they lie
            products += factors[:, :, channel, None] * u[:, channel, None, :]
        return _combined(products)[: len(rows)]

    def macs(self, *operands: TensorType) -> int:
        """Those of the direct method, with which it is compared."""
        (y,) = self.infer(*operands)
        return y.size * operands[0].shape[1]

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        weights = StrassenWeights()
        for x, w in _CASES:
            made = weights.infer(f32(*w))
            yield LinkedSample(cls(), (f32(*x), *made), links=((1, weights, (2,)),), drawn=(f32(*w),))


@dataclass(frozen=True)
class StrassenWeightGrad(NoDerivative):
    """dy [N,O,H,W], x [N,I,H,W] -> dw [O,I,1,1], the weight gradient of a convolution of one tap.

    The pixels of all images are one row; its halves are those of an array [N*H*W,...].
    """

    name: ClassVar[str] = "strassen_weight_grad"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION, Trait.UPDATE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dy, x = take_floats(operands, "result gradient", "input")
        expect_rank("result gradient", dy, "N,O,H,W")
        expect_rank("input", x, "N,I,H,W")
        needed = TensorType(dy.dtype, (x.shape[0], dy.shape[1], *x.shape[2:]))
        expect_type("result gradient", dy, needed, f"the 1x1 convolution of {x}")
        for tensor, what in ((dy, "maps"), (x, "channels")):
            _halves(tensor.shape[1], what)
        return (TensorType(dy.dtype, (dy.shape[1], x.shape[1], 1, 1)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, x = (_paired(np.moveaxis(operand, 1, 3).reshape(-1, operand.shape[1])) for operand in operands)
        factors = _left(_quarters(np.ascontiguousarray(x.T))), _right(_quarters(dy))
        return (np.ascontiguousarray(_combined(factors[0] @ factors[1]).T)[:, :, None, None],)

    def macs(self, *operands: TensorType) -> int:
        """Those of the direct method, with which it is compared."""
        return operands[0].size * operands[1].shape[1]

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for x, w in _CASES:
            yield Sample(cls(), (f32(x[0], w[0], *x[2:]), f32(*x)))


def _paired(rows: Array) -> Array:
    """[P,C], and a row of zeros if P is odd."""
    return np.pad(rows, ((0, len(rows) % 2), (0, 0)))


def _quarters(matrix: Array) -> _Quarters:
    (a11, a12), (a21, a22) = (np.split(rows, 2, axis=1) for rows in np.split(matrix, 2))
    return (a11, a12), (a21, a22)


def _left(quarters: _Quarters) -> Array:
    """The left factors of the seven products."""
    (a11, a12), (a21, a22) = quarters
    s1, s3 = a21 + a22, a11 - a21
    s2 = s1 - a11
    return np.stack([a11, a12, s2, s3, a22, s1, a12 - s2])


def _right(quarters: _Quarters) -> Array:
    """The right ones."""
    (b11, b12), (b21, b22) = quarters
    t1, t3 = b12 - b11, b22 - b12
    t2 = b22 - t1
    return np.stack([b11, b21, t2, t3, b21 - t2, t1, b22])


def _combined(products: Array) -> Array:
    """The seven products -> the result."""
    p1, p2, p3, p4, p5, p6, p7 = products
    u2 = p1 + p3
    u3 = u2 + p4
    return np.block([[p1 + p2, u2 + p6 + p7], [u3 + p5, u3 + p6]])


_CASES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    # x, w
    ((2, 2, 7, 9), (2, 2, 1, 1)),
    ((1, 34, 1, 1), (32, 34, 1, 1)),
    ((3, 18, 1, 2), (66, 18, 1, 1)),
    ((2, 16, 7, 7), (96, 16, 1, 1)),
    ((1, 6, 17, 9), (64, 6, 1, 1)),
    ((1, 66, 8, 8), (48, 66, 1, 1)),
    ((2, 32, 33, 2), (320, 32, 1, 1)),
    ((1, 34, 17, 33), (18, 34, 1, 1)),
)
