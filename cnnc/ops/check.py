"""Checks shared by the ops' type rules; each raises a ShapeError that names the values."""

from __future__ import annotations

from collections.abc import Sequence

from cnnc.errors import ShapeError
from cnnc.ir.types import TensorType

FLOATS = ("f32", "f64")


def take(operands: Sequence[TensorType], *names: str) -> Sequence[TensorType]:
    """`operands`, provided there is one for each of `names`."""
    if len(operands) != len(names):
        listed = f" ({', '.join(names)})" if names else ""
        raise ShapeError(f"takes {len(names)} operands{listed}, got {len(operands)}")
    return operands


def take_floats(operands: Sequence[TensorType], *names: str) -> Sequence[TensorType]:
    """As `take`, provided also that all have one floating-point dtype."""
    take(operands, *names)
    for name, type in zip(names, operands, strict=True):
        expect_float(name, type)
        if type.dtype != operands[0].dtype:
            raise ShapeError(f"got {operands[0]} as the {names[0]}, {type} as the {name}: dtypes must agree")
    return operands


def expect_float(name: str, type: TensorType) -> None:
    if type.dtype not in FLOATS:
        raise ShapeError(f"got {type} as the {name}, which must hold floating-point numbers")


def expect_rank(name: str, type: TensorType, axes: str) -> None:
    """`axes` spells the axes the operand must have, as in `N,C,H,W`."""
    rank = axes.count(",") + 1 if axes else 0
    if type.rank != rank:
        raise ShapeError(f"got {type} as the {name}, which must have {rank} axes [{axes}]")


def expect_type(name: str, type: TensorType, expected: TensorType, why: str) -> None:
    if type != expected:
        raise ShapeError(f"got {type} as the {name}, but {why} needs {expected}")


def expect_ints(name: str, value: Sequence[int], count: int, least: int) -> None:
    """`value` is an attribute of `count` integers, none below `least`."""
    if len(value) != count or any(v < least for v in value):
        shown = ",".join(map(str, value))
        raise ShapeError(f"{name} must be {count} integers of at least {least}, got ({shown})")
