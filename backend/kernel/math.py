"""exp, log, tanh and sigmoid of a Vec, written in the kernel language.

Kernels call these where a fused expression needs them, so every target and the interpreter compute the
same bits and no libm is called. The coefficients are minimax fits of the relative error made for these
forms (weighted least squares after Lawson, linearised after Loeb for tanh). Relative errors, measured
over dense grids: exp 9.1e-8, log 1.1e-7, tanh 2.9e-7, sigmoid 1.6e-7. A NaN gives a NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cnnc.backend.kernel.builder import KernelBuilder, Vec


def exp(k: KernelBuilder, x: Vec) -> Vec:
    """e ** x, for x clamped to -87.3365..88.7228, where the result is a finite normal number.

    x = n * ln 2 + r with n a whole number and r in 0..ln 2, so that n stays in exp2i's -126..127;
    ln 2 is taken in two parts (W. J. Cody, W. Waite, "Software Manual for the Elementary Functions").
    """
    bounded = k.compute("min", 88.72283, k.compute("max", -87.3365, x))
    n = k.compute("round", k.fma(bounded, 1.44269504, -0.5))
    r = k.fma(n, 2.12194440e-4, k.fma(n, -0.693359375, bounded))
    q = _polynomial(k, r, (0.0019125742, 0.007868281, 0.041855067, 0.16663189, 0.50000226, 1.0, 1.0))
    return q * k.compute("exp2i", n)


def log(k: KernelBuilder, x: Vec) -> Vec:
    """The natural logarithm; -inf of 0, NaN of a negative number, log(2**-126) of a denormal one.

    x = 2**e * (1 + f) with 1 + f in 0.707..1.414, as in S. L. Moshier's Cephes library (logf).
    """
    root = math.sqrt(2.0)
    normal = k.compute("max", x, 2.0**-126)
    mantissa, exponent = k.compute("mantissa", normal), k.compute("exponent", normal)
    e = k.compute("select_lt", root, mantissa, exponent + 1.0, exponent)
    f = k.compute("select_lt", root, mantissa, mantissa * 0.5, mantissa) - 1.0
    p = _polynomial(
        k, f, (0.087004386, -0.14267492, 0.14914769, -0.16577584, 0.19963063, -0.25001338, 0.3333391, -0.5)
    )
    small = k.fma(e, -2.12194440e-4, p * (f * f))
    finite = k.fma(e, 0.693359375, f + small)
    valued = k.compute("select_eq", x, math.inf, x, finite)
    undefined = k.compute("sqrt", x) - math.inf  # -inf of 0, NaN of negative numbers and of NaN
    return k.compute("select_lt", 0.0, x, valued, undefined)


def tanh(k: KernelBuilder, x: Vec) -> Vec:
    """The hyperbolic tangent: an odd 9/8 rational function of x clamped to -8.2..8.2; never beyond +-1.

    Branchless and with one division, as Eigen's `ptanh_float`, with coefficients of our own.
    """
    bounded = k.compute("min", 8.2, k.compute("max", -8.2, x))
    square = bounded * bounded
    p = _polynomial(k, square, (1.4903309e-08, 2.1683261e-05, 0.0035595319, 0.13434541, 1.0))
    q = _polynomial(k, square, (8.3964545e-07, 0.00033910552, 0.026119191, 0.4676787, 1.0))
    return bounded * p / q


def sigmoid(k: KernelBuilder, x: Vec) -> Vec:
    """1 / (1 + exp(-x)), accurate also where it is nearly 0."""
    return k.compute("div", 1.0, exp(k, x * -1.0) + 1.0)


def _polynomial(k: KernelBuilder, x: Vec, coefficients: Sequence[float]) -> Vec:
    """Horner's rule, highest power first."""
    first, second, *rest = coefficients
    value = k.fma(x, first, second)
    for coefficient in rest:
        value = k.fma(value, x, coefficient)
    return value
