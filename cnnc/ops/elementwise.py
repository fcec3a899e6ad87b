"""Elementwise ops: a scalar expression applied to every element; gradients are derived, not written.

`Map` is any expression; the named ops are the common ones, so that dumps read well. What a pass
or kernel needs is `op.expr`, in the variables a, b, c, ... for the operands 0, 1, 2, ...
"""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from cnnc.errors import FormatError, ShapeError, UnsupportedError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample, Trait
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import take_floats
from cnnc.ops.reduce import Sum
from cnnc.ops.scalar import ONE, ZERO, Expr, Var, derive, evaluate, select_lt, simplify, substitute, variables
from cnnc.ops.scalar_text import parse_expr, print_expr

LETTERS = string.ascii_lowercase[:24]  # not y, which is the result in derivatives


@dataclass(frozen=True)
class Elementwise(Op):
    """Base of the elementwise ops.

    Operand 0 has the result's shape. Every other operand has that shape too, or is a channel
    operand [C] with C = shape[1], or a scalar [].
    """

    formula: ClassVar[str]
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.ELEMENTWISE, Trait.EPILOGUE})

    @cached_property
    def expr(self) -> Expr:
        return parse_expr(self.formula)

    @property
    def arity(self) -> int:
        """Number of operands: up to the last letter the expression mentions, at least one."""
        return max((LETTERS.index(name) + 1 for name in variables(self.expr)), default=1)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        take_floats(operands, *(f"operand {letter}" for letter in LETTERS[: self.arity]))
        result = operands[0]
        for letter, operand in zip(LETTERS, operands, strict=False):
            if operand.shape in (result.shape, channel_shape(result), ()):
                continue
            channel = TensorType(result.dtype, channel_shape(result))
            either = f"{result}, {channel} (one per channel)" if result.rank > 1 else f"{result}"
            raise ShapeError(f"operand {letter} is {operand}; it must be {either} or a scalar")
        return (result,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        shape = operands[0].shape
        values = {letter: _spread(x, shape) for letter, x in zip(LETTERS, operands, strict=False)}
        return (np.array(np.broadcast_to(evaluate(self.expr, values), shape)),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        """Emits `dy * slope`, summed over the axes an operand was spread along; dy itself for slope 1."""
        values = {"dy": result_grads[0], "y": results[0], **dict(zip(LETTERS, operands, strict=False))}
        grads: list[Value | None] = []
        for letter, operand in zip(LETTERS, operands, strict=False):
            slope = self.slope(letter)
            if slope == ZERO:
                grads.append(None)
                continue
            full = emit_expr(emit, Var("dy") if slope == ONE else simplify(Var("dy") * slope), values)
            axes = _spread_axes(operand.type, results[0].type)
            grads.append(emit.emit(Sum(axes), full) if axes else full)
        return grads

    def slope(self, letter: str) -> Expr:
        """Derivative by that operand, in the operands' letters and `y`, the result.

        The result replaces operands where it can, as in tanh' = 1 - y * y, for the operands then
        need not be kept; it is not used if the derivative would read more values with it.
        """
        direct = derive(self.expr, letter)
        by_result = substitute(direct, {self.expr: Var("y")})
        return by_result if len(variables(by_result)) <= len(variables(direct)) else direct

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in ((2, 3, 7, 9), (1, 17, 5, 1), (3, 33), (7,)):
            yield Sample(cls(), (f32(*shape),) * cls().arity)


@dataclass(frozen=True)
class Relu(Elementwise):
    """max(a, 0), with slope 0 at 0."""

    name: ClassVar[str] = "relu"
    formula: ClassVar[str] = "max(a, 0.0)"


@dataclass(frozen=True)
class Relu6(Elementwise):
    """min(max(a, 0), 6), with slope 0 at both ends."""

    name: ClassVar[str] = "relu6"
    formula: ClassVar[str] = "min(max(a, 0.0), 6.0)"

    def slope(self, letter: str) -> Expr:
        """By the result alone, so that the operand need not be kept for the backward pass."""
        return select_lt(0.0, Var("y"), select_lt(Var("y"), 6.0, 1.0, 0.0), 0.0)


@dataclass(frozen=True)
class Tanh(Elementwise):
    """The hyperbolic tangent."""

    name: ClassVar[str] = "tanh"
    formula: ClassVar[str] = "tanh(a)"


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """1 / (1 + exp(-a))."""

    name: ClassVar[str] = "sigmoid"
    formula: ClassVar[str] = "sigmoid(a)"


@dataclass(frozen=True)
class Add(Elementwise):
    """a + b."""

    name: ClassVar[str] = "add"
    formula: ClassVar[str] = "a + b"


@dataclass(frozen=True)
class Sub(Elementwise):
    """a - b."""

    name: ClassVar[str] = "sub"
    formula: ClassVar[str] = "a - b"


@dataclass(frozen=True)
class Mul(Elementwise):
    """a * b."""

    name: ClassVar[str] = "mul"
    formula: ClassVar[str] = "a * b"


@dataclass(frozen=True)
class Bias(Elementwise):
    """a + b where b has one value per channel of a [N,C] or [N,C,H,W]."""

    name: ClassVar[str] = "bias"
    formula: ClassVar[str] = "a + b"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, bias = take_floats(operands, "input", "bias")
        if x.rank < 2:
            raise ShapeError(f"got {x} as the input, which must have a batch and a channel axis")
        if bias.shape != channel_shape(x):
            raise ShapeError(f"the input has {x.shape[1]} channels, the bias is {bias}")
        return (x,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in ((2, 3, 7, 9), (1, 17, 5, 1), (3, 33), (9, 1)):
            yield Sample(cls(), (f32(*shape), f32(shape[1])))


@dataclass(frozen=True)
class Map(Elementwise):
    """Any expression in a, b, c, ...; `f` is its text, held in canonical form.

    Raises FormatError if `f` is malformed or names another variable.
    """

    name: ClassVar[str] = "map"
    f: str

    def __post_init__(self) -> None:
        expr = parse_expr(self.f)
        strange = [name for name in variables(expr) if len(name) > 1 or name not in LETTERS]
        if strange:
            raise FormatError(
                f"formula {self.f!r}: {strange[0]!r} is no operand; operands are a, b, ... {LETTERS[-1]}"
            )
        object.__setattr__(self, "f", print_expr(expr))

    @cached_property
    def expr(self) -> Expr:
        return parse_expr(self.f)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        full, channel, scalar = f32(2, 7, 3, 5), f32(7), f32()
        positive = (0.5, 2.0)
        yield Sample(cls("a * sigmoid(a)"), (full,))
        yield Sample(cls("max(a, 0.1 * a)"), (full,))
        yield Sample(cls("select(a < 0.0, exp(a) - 1.0, a)"), (f32(9, 17),))
        yield Sample(cls("a * b + c"), (full, channel, scalar))
        yield Sample(cls("(a - b) / (sqrt(c) + 0.1)"), (full, channel, channel), ((-1, 1), (-1, 1), positive))
        yield Sample(cls("log(a) * sqrt(b) / a"), (f32(3, 33), f32(3, 33)), (positive, positive))
        yield Sample(cls("select(0.0 < b, a, 0.0)"), (full, full))
        yield Sample(cls("min(a, b) - tanh(-b)"), (f32(1), f32()))
        yield Sample(cls("b"), (full, channel))


def activation(f: str | Callable[..., Expr]) -> Map:
    """A new elementwise op in one line, ready to train with.

    `f` is a formula, `activation("x * sigmoid(x)")`, whose variables become the operands in
    alphabetical order, or a function over expressions, `activation(lambda x: x * sigmoid(x))`,
    with the functions of scalar.py. Raises FormatError on a malformed formula.
    """
    if callable(f):
        names = list(inspect.signature(f).parameters)
        expr = f(*map(Var, names))
    else:
        expr = parse_expr(f)
        names = sorted(variables(expr))
    letters: dict[Expr, Expr] = {Var(n): Var(letter) for n, letter in zip(names, LETTERS, strict=False)}
    return Map(print_expr(substitute(expr, letters)))


def emit_expr(emit: Emitter, expr: Expr, values: Mapping[str, Value]) -> Value:
    """Emit a Map for an expression over named values and return the result.

    The operands are in the order of `values`, but those of highest rank first, for operand 0 gives
    the shape. A mere variable emits nothing: its value is returned.
    """
    if isinstance(expr, Var):
        return values[expr.name]
    read = [name for name in values if name in variables(expr)]
    names = sorted(read, key=lambda name: -values[name].type.rank)
    if len(names) > len(LETTERS):
        raise UnsupportedError(f"an expression over {len(names)} values; at most {len(LETTERS)} can be named")
    letters: dict[Expr, Expr] = {Var(n): Var(letter) for n, letter in zip(names, LETTERS, strict=False)}
    return emit.emit(Map(print_expr(substitute(expr, letters))), *(values[name] for name in names))


def channel_shape(type: TensorType) -> tuple[int, ...]:
    """Shape of a channel operand of a result of that type; the result's own without channels."""
    return type.shape[1:2] if type.rank > 1 else type.shape


def _spread(x: Array, shape: tuple[int, ...]) -> Array:
    """`x`, if it is a channel operand, with axes added so that it broadcasts to `shape`."""
    if x.shape == shape or x.ndim == 0:
        return x
    return x.reshape(1, -1, *(1 for _ in shape[2:]))


def _spread_axes(operand: TensorType, result: TensorType) -> tuple[int, ...]:
    """Axes of the result along which the operand's elements are repeated."""
    if operand.shape == result.shape:
        return ()
    return tuple(axis for axis in range(result.rank) if operand.rank == 0 or axis != 1)
