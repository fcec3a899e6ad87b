"""The scalar expression language: what an elementwise op computes on one element.

A tree of three node classes, `Var`, `Const` and `Call`, over the fourteen functions of FUNCTIONS.
elementwise.py derives gradients from it, scalar_text.py prints and parses it, and the backend
writes the same tree with vector registers. NumPy evaluates it here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from cnnc.ir.types import Array


@dataclass(frozen=True)
class Expr:
    """Base of the three node classes; the usual operators build trees, floats lift to `Const`."""

    def __add__(self, other: Expr | float) -> Expr:
        return Call("add", (self, lift(other)))

    def __radd__(self, other: float) -> Expr:
        return Call("add", (lift(other), self))

    def __sub__(self, other: Expr | float) -> Expr:
        return Call("sub", (self, lift(other)))

    def __rsub__(self, other: float) -> Expr:
        return Call("sub", (lift(other), self))

    def __mul__(self, other: Expr | float) -> Expr:
        return Call("mul", (self, lift(other)))

    def __rmul__(self, other: float) -> Expr:
        return Call("mul", (lift(other), self))

    def __truediv__(self, other: Expr | float) -> Expr:
        return Call("div", (self, lift(other)))

    def __rtruediv__(self, other: float) -> Expr:
        return Call("div", (lift(other), self))

    def __neg__(self) -> Expr:
        return Call("neg", (self,))


@dataclass(frozen=True)
class Var(Expr):
    """A free variable; `a`, `b`, `c`, ... are an elementwise op's operands 0, 1, 2, ..."""

    name: str


@dataclass(frozen=True)
class Const(Expr):
    """A number; NaN is none, for it would not equal itself."""

    value: float


@dataclass(frozen=True)
class Call(Expr):
    """One of FUNCTIONS applied to as many arguments as its arity."""

    function: str
    args: tuple[Expr, ...]


def lift(x: Expr | float) -> Expr:
    """`x` itself, a number as a `Const`."""
    return x if isinstance(x, Expr) else Const(float(x))


def maximum(x: Expr | float, y: Expr | float) -> Expr:
    return Call("max", (lift(x), lift(y)))


def minimum(x: Expr | float, y: Expr | float) -> Expr:
    return Call("min", (lift(x), lift(y)))


def exp(x: Expr | float) -> Expr:
    return Call("exp", (lift(x),))


def log(x: Expr | float) -> Expr:
    return Call("log", (lift(x),))


def sqrt(x: Expr | float) -> Expr:
    return Call("sqrt", (lift(x),))


def tanh(x: Expr | float) -> Expr:
    return Call("tanh", (lift(x),))


def sigmoid(x: Expr | float) -> Expr:
    return Call("sigmoid", (lift(x),))


def select_lt(x: Expr | float, y: Expr | float, then: Expr | float, other: Expr | float) -> Expr:
    """`then` where x < y, else `other`."""
    return Call("select_lt", (lift(x), lift(y), lift(then), lift(other)))


def select_eq(x: Expr | float, y: Expr | float, then: Expr | float, other: Expr | float) -> Expr:
    """`then` where x == y, else `other`."""
    return Call("select_eq", (lift(x), lift(y), lift(then), lift(other)))


@dataclass(frozen=True)
class Function:
    """One function of the language: its arity, its value by NumPy, its partial derivatives.

    `partials(call, *call.args)` gives the derivative by each argument. It may mention `call`
    itself, so that the derivative can be read from the function's own value (see `substitute`).
    """

    arity: int
    value: Callable[..., Any]
    partials: Callable[..., tuple[Expr, ...]]


ZERO, ONE = Const(0.0), Const(1.0)

FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {
        "add": Function(2, np.add, lambda _, u, v: (ONE, ONE)),
        "sub": Function(2, np.subtract, lambda _, u, v: (ONE, Const(-1.0))),
        "mul": Function(2, np.multiply, lambda _, u, v: (v, u)),
        "div": Function(2, np.divide, lambda f, u, v: (1.0 / v, -(f / v))),
        "neg": Function(1, np.negative, lambda _, u: (Const(-1.0),)),
        # A tie belongs to the second argument: relu = max(a, 0.0) has slope 0 at 0.
        "max": Function(2, np.maximum, lambda f, u, v: (select_lt(v, f, 1, 0), select_lt(v, f, 0, 1))),
        "min": Function(2, np.minimum, lambda f, u, v: (select_lt(f, v, 1, 0), select_lt(f, v, 0, 1))),
        "exp": Function(1, np.exp, lambda f, u: (f,)),
        "log": Function(1, np.log, lambda _, u: (1.0 / u,)),
        "sqrt": Function(1, np.sqrt, lambda f, u: (0.5 / f,)),
        "tanh": Function(1, np.tanh, lambda f, u: (1.0 - f * f,)),
        "sigmoid": Function(1, lambda u: 1 / (1 + np.exp(-u)), lambda f, u: (f * (1.0 - f),)),
        "select_lt": Function(
            4,
            lambda x, y, u, v: np.where(x < y, u, v),
            lambda _, x, y, u, v: (ZERO, ZERO, select_lt(x, y, 1, 0), select_lt(x, y, 0, 1)),
        ),
        "select_eq": Function(
            4,
            lambda x, y, u, v: np.where(x == y, u, v),
            lambda _, x, y, u, v: (ZERO, ZERO, select_eq(x, y, 1, 0), select_eq(x, y, 0, 1)),
        ),
    }
)


def evaluate(expr: Expr, values: Mapping[str, Array]) -> Array:
    """The value by NumPy, in the common dtype of `values`, which broadcast against each other.

    Follows IEEE: log(-1) is NaN, 1/0 is infinite, and no warning is given.
    """
    dtype = np.result_type(*values.values()) if values else np.dtype(np.float64)

    def value(e: Expr) -> Any:
        match e:
            case Var(name):
                return values[name]
            case Const(number):
                return dtype.type(number)
            case Call(function, args):
                return FUNCTIONS[function].value(*map(value, args))
        raise TypeError(f"{e!r} is no expression")

    with np.errstate(all="ignore"):
        return np.asarray(value(expr), dtype=dtype)


CHEAP = frozenset({"add", "sub", "mul", "max", "min", "neg", "select_lt", "select_eq"})
"""Functions that cost less than reading an element."""


def is_cheap(expr: Expr) -> bool:
    """Whether an expression costs less than reading an element."""
    return not isinstance(expr, Call) or (expr.function in CHEAP and all(map(is_cheap, expr.args)))


def variables(expr: Expr) -> tuple[str, ...]:
    """Names of the free variables in the order of their first appearance."""
    match expr:
        case Var(name):
            return (name,)
        case Call(_, args):
            return tuple(dict.fromkeys(name for arg in args for name in variables(arg)))
    return ()


def substitute(expr: Expr, replacements: Mapping[Expr, Expr]) -> Expr:
    """`expr` with each subexpression that is a key replaced, outermost first, in one sweep."""
    if expr in replacements:
        return replacements[expr]
    if isinstance(expr, Call):
        return Call(expr.function, tuple(substitute(a, replacements) for a in expr.args))
    return expr


def derive(expr: Expr, var: str) -> Expr:
    """The derivative by the variable `var`, simplified, by the chain rule."""
    return simplify(_chain(expr, var))


def _chain(expr: Expr, var: str) -> Expr:
    if not isinstance(expr, Call):
        return ONE if expr == Var(var) else ZERO
    slope: Expr = ZERO
    partials = FUNCTIONS[expr.function].partials(expr, *expr.args)
    for partial, arg in zip(partials, expr.args, strict=True):
        slope = slope + partial * _chain(arg, var)
    return slope


def simplify(expr: Expr) -> Expr:
    """An expression of equal value with the neutral elements gone and the constants computed.

    0 * x and 0 / x count as 0, which holds where x is finite and not 0.
    """
    if not isinstance(expr, Call):
        return expr
    call = Call(expr.function, tuple(map(simplify, expr.args)))
    for rule in (_fold, _simplify_sum, _simplify_product, _simplify_select):
        smaller = rule(call)
        if smaller is not None:
            return smaller
    return call


def _fold(call: Call) -> Expr | None:
    numbers = [np.float64(arg.value) for arg in call.args if isinstance(arg, Const)]
    if len(numbers) < len(call.args):
        return None
    with np.errstate(all="ignore"):
        value = float(FUNCTIONS[call.function].value(*numbers))
    return Const(value) if math.isfinite(value) else None


def _simplify_sum(call: Call) -> Expr | None:
    match call:
        case (
            Call("add", (Const(0.0), x))
            | Call("add" | "sub", (x, Const(0.0)))
            | Call("neg", (Call("neg", (x,)),))
        ):
            return x
        case Call("sub", (Const(0.0), x)):
            return simplify(-x)
        case Call("sub", (x, Call("neg", (y,)))):
            return simplify(x + y)
        case Call("add", (x, Call("neg", (y,)))) | Call("add", (Call("neg", (y,)), x)):
            return simplify(x - y)
        case Call("add", (Call(f, (x, y, u, v)), Call(g, (p, q, s, t)))) if (f, x, y) == (g, p, q):
            return simplify(Call(f, (x, y, u + s, v + t)))
    return None


def _simplify_product(call: Call) -> Expr | None:
    match call:
        case Call("mul", (x, y)):
            return _simplify_times(x, y) or _simplify_times(y, x)
        case Call("div", (x, y)):
            return _simplify_over(x, y)
    return None


def _simplify_times(x: Expr, y: Expr) -> Expr | None:
    """What x * y becomes on account of x."""
    match x:
        case Const(0.0):
            return ZERO
        case Const(1.0):
            return y
        case Const(-1.0):
            return simplify(-y)
        case Call("neg", (u,)):
            return simplify(-(u * y))
        case Call("div", (Const(1.0), u)):
            return simplify(y / u)
        case Call("select_lt" | "select_eq" as f, (p, q, Const(u), Const(v))) if {u, v} <= {0.0, 1.0}:
            return simplify(Call(f, (p, q, u * y, v * y)))
    return None


def _simplify_over(x: Expr, y: Expr) -> Expr | None:
    match x, y:
        case (Const(0.0), _):
            return ZERO
        case (_, Const(1.0)):
            return x
        case (_, Const(-1.0)):
            return simplify(-x)
        case (Call("neg", (u,)), _):
            return simplify(-(u / y))
        case (_, Call("neg", (v,))):
            return simplify(-(x / v))
    return None


def _simplify_select(call: Call) -> Expr | None:
    match call:
        case Call("select_lt" | "select_eq", (_, _, u, v)) if u == v:
            return u
        case Call("select_lt" | "select_eq", (Const(x), Const(y), u, v)):
            return u if (x < y if call.function == "select_lt" else x == y) else v
        case Call("max" | "min", (x, y)) if x == y:
            return x
    return None
