"""Checks and normal forms of the arguments users give to layers: sizes, pairs, padding, names."""

from __future__ import annotations

import math
import operator
import re
from typing import Literal, SupportsIndex

from cnnc.errors import CnncError

Size = int | tuple[int, int]
Pair = tuple[int, int]
Padding = int | tuple[int, int] | tuple[int, int, int, int] | Literal["same"]

# What a text graph, a C identifier in a header and a safetensors key can all carry.
LAYER_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
TENSOR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def whole(what: str, value: SupportsIndex, least: int) -> int:
    """`value` as an int of at least `least`. Raises CnncError for any other value or type."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise CnncError(f"{what} must be a whole number, not {value!r}")
    number = operator.index(value)
    if number < least:
        raise CnncError(f"{what} must be at least {least}, not {number}")
    return number


def pair(what: str, value: Size, least: int) -> tuple[int, int]:
    """(vertical, horizontal) from one number for both or from two."""
    if not isinstance(value, tuple | list):
        return (whole(what, value, least),) * 2
    if len(value) != 2:
        raise CnncError(f"{what} must be one number or two (vertical, horizontal), not {value!r}")
    return whole(what, value[0], least), whole(what, value[1], least)


def padding(
    value: Padding, kernel: Pair, dilation: Pair, stride: Pair, size: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) from one number, (vertical, horizontal), all four, or "same".

    "same" gives ceil(n / stride) results for n elements, with the least padding that does: it adds
    max(0, (results - 1) * stride + dilation * (k - 1) + 1 - n) elements to an axis of `size`, half of them,
    rounded down, before. This is TensorFlow's SAME and ONNX's SAME_UPPER; at stride 1 the size stays.
    """
    if value == "same":
        axes = zip(kernel, dilation, stride, size, strict=True)
        return _halved(*(max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n) for k, d, s, n in axes))
    return _sides(value)


def transposed_padding(
    value: Padding, kernel: Pair, dilation: Pair, stride: Pair, output_pad: Pair
) -> tuple[int, int, int, int]:
    """As `padding`, of a transposed convolution, whose result it makes smaller.

    "same" gives n * stride results: dilation * (k - 1) + 1 + output_pad - stride elements go, half of
    them, rounded down, before, as for ONNX's SAME_UPPER. Raises CnncError if that is negative.
    """
    if value != "same":
        return _sides(value)
    axes = zip(kernel, dilation, stride, output_pad, strict=True)
    totals = [d * (k - 1) + 1 + e - s for k, d, s, e in axes]
    if min(totals) < 0:
        raise CnncError(f"pad 'same' needs a kernel {kernel} at least as large as the stride {stride}")
    return _halved(*totals)


def _halved(vertical: int, horizontal: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) with half of each axis, rounded down, before."""
    top, left = vertical // 2, horizontal // 2
    return top, left, vertical - top, horizontal - left


def _sides(value: Padding) -> tuple[int, int, int, int]:
    if isinstance(value, str):
        raise CnncError(f"pad must be numbers or 'same', not {value!r}")
    if not isinstance(value, tuple | list):
        return (whole("pad", value, 0),) * 4
    sizes = [whole("pad", v, 0) for v in value]
    if len(sizes) not in (2, 4):
        raise CnncError(f"pad must be one number, two (vertical, horizontal) or four, not {value!r}")
    top, left, bottom, right = sizes * (4 // len(sizes))
    return top, left, bottom, right


def finite(what: str, value: float) -> float:
    """`value` as a finite float. Raises CnncError for any other value or type."""
    if isinstance(value, bool) or not hasattr(value, "__float__") or not math.isfinite(value):
        raise CnncError(f"{what} must be a finite number, not {value!r}")
    return float(value)


def flag(what: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise CnncError(f"{what} must be True or False, not {value!r}")
    return value


def layer_name(value: str) -> str:
    """A name for a layer or a network: letters, digits and `_`, in parts joined by dots."""
    if not isinstance(value, str) or not LAYER_NAME.fullmatch(value):
        raise CnncError(f"a name is made of letters, digits, '_' and single dots between; {value!r} is not")
    return value


def tensor_name(value: str, reserved: frozenset[str]) -> str:
    """A name for an input or output: an identifier that is none of the compiler's own names."""
    if not isinstance(value, str) or not TENSOR_NAME.fullmatch(value):
        raise CnncError(f"an input's or output's name is made of letters, digits and '_'; {value!r} is not")
    if value in reserved:
        raise CnncError(f"the name {value!r} is kept for training; choose another")
    return value
