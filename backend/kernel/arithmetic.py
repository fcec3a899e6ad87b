"""The functions of the kernel language on float32 arrays, each rounded once; interpreter.py calls them.

Targets reproduce these bits, but for `fma` on those that have no such instruction: they round twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

TRAILING = np.int64((1 << 28) - 1)
"""The float64 bits that are all zero where a value lies halfway between two float32 (or is one)."""


def maximum(a: F32, b: F32) -> F32:
    """`b` where the two are equal or either is NaN, as x86's maxps."""
    return np.where(a > b, a, b)


def minimum(a: F32, b: F32) -> F32:
    """`b` where the two are equal or either is NaN, as x86's minps."""
    return np.where(a < b, a, b)


def fma(a: F32, b: F32, c: F32) -> F32:
    """a * b + c with a single rounding.

    The product of two float32 is exact in float64; their sum with `c` is not, and rounding it again
    to float32 would go wrong where the float64 sum falls on a tie. Such sums are rounded to odd first.
    """
    product, addend = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + addend
    if not np.bitwise_and(total.view(np.int64), TRAILING).all():
        total = _round_to_odd(product, addend, total)
    return total.astype(np.float32)


def _round_to_odd(a: F64, b: F64, total: F64) -> F64:
    """a + b truncated, with the last bit set if that is inexact (S. Boldo, G. Melquiond, "Emulation of
    FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008)."""
    back = total - a
    error = (a - (total - back)) + (b - back)
    inexact = (error > 0) | (error < 0)
    bits = total.view(np.int64)
    truncated = bits - (inexact & ((error > 0) != (total > 0)))
    return np.where(inexact, truncated | 1, bits).view(np.float64)


def exp2i(a: F32) -> F32:
    return np.ldexp(np.float32(1), a.astype(np.int32))


def exponent(a: F32) -> F32:
    return np.frexp(a)[1].astype(np.float32) - np.float32(1)


def mantissa(a: F32) -> F32:
    return np.frexp(a)[0] * np.float32(2)


def select_lt(a: F32, b: F32, c: F32, d: F32) -> F32:
    return np.where(a < b, c, d)


def select_eq(a: F32, b: F32, c: F32, d: F32) -> F32:
    return np.where(a == b, c, d)


ARITHMETIC: Mapping[str, Callable[..., F32]] = MappingProxyType(
    {
        "copy": np.positive,
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "max": maximum,
        "min": minimum,
        "fma": fma,
        "sqrt": np.sqrt,
        "round": np.rint,
        "exp2i": exp2i,
        "exponent": exponent,
        "mantissa": mantissa,
        "select_lt": select_lt,
        "select_eq": select_eq,
    }
)
"""One function for each name in ir.FUNCTIONS."""


def reduce_lanes(function: str, value: F32) -> F32:
    """add, max or min over the lanes, by halves: lane l with lane l + lanes/2; an array of one lane."""
    while len(value) > 1:
        half = len(value) // 2
        value = ARITHMETIC[function](value[:half], value[half:])
    return value
