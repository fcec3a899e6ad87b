"""Attribute values of ops: which values the text form can hold, and whether one fits its field.

Used by the printer, the parser and the verifier; an op's own rules about values are the op's.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields

from cnnc.ir.graph import Graph
from cnnc.ir.op import Op


def is_scalar(value: object) -> bool:
    """Whether `value` is a bool, int, float or str (NumPy's float64 counts as the float it is)."""
    return isinstance(value, bool | int | float | str)


def is_attribute(value: object) -> bool:
    """Whether the text form can hold `value`: a scalar, a tuple of scalars, or a graph."""
    return isinstance(value, Graph) or is_scalar(value) or _is_flat_tuple(value)


def attribute_types(op: type[Op]) -> Mapping[str, object]:
    """The declared type of each attribute of `op`, in the order of declaration."""
    hints = typing.get_type_hints(op)
    return {f.name: hints[f.name] for f in fields(op)}


def convert(value: object, hint: object) -> object:
    """`value` as the type `hint` wants it: an int becomes a float where a float is declared.

    Raises TypeError if the value does not fit. Hints that are no attribute type admit every value.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_to_any(value, arguments)
    if origin is tuple:
        return _convert_tuple(value, arguments)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is not hint:
        raise TypeError(f"{value!r} is not of type {hint.__name__}")
    return value


def type_text(hint: object) -> str:
    """`tuple[int, int]` for that hint: what an error message says was expected."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _is_flat_tuple(value: object) -> bool:
    return isinstance(value, tuple) and all(is_scalar(item) for item in value)


def _convert_to_any(value: object, hints: tuple[object, ...]) -> object:
    for hint in hints:
        try:
            return convert(value, hint)
        except TypeError:
            continue
    raise TypeError(f"{value!r} fits none of {', '.join(map(type_text, hints))}")


def _convert_tuple(value: object, hints: tuple[object, ...]) -> object:
    if not isinstance(value, tuple):
        raise TypeError(f"{value!r} is not a tuple")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(value) != len(hints):
        raise TypeError(f"{value!r} does not have {len(hints)} items")
    return tuple(convert(item, hint) for item, hint in zip(value, hints, strict=True))
