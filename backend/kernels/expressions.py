"""Scalar expressions of elementwise ops, written with vector registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from cnnc.backend.kernel import math
from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.ops.scalar import Call, Const, Expr, Var

_TRANSCENDENTAL: Mapping[str, Callable[[KernelBuilder, Vec], Vec]] = MappingProxyType(
    {"exp": math.exp, "log": math.log, "tanh": math.tanh, "sigmoid": math.sigmoid}
)


NOTHING_KNOWN: Mapping[Expr, Vec] = MappingProxyType({})


def emit_expression(
    k: KernelBuilder,
    expr: Expr,
    operands: Mapping[str, Vec],
    lanes: int,
    computed: Mapping[Expr, Vec] = NOTHING_KNOWN,
) -> Vec:
    """The value of `expr` where its variables have the values `operands`; equal subterms run once.

    `computed` are subterms whose values are there already.
    """
    known: dict[Expr, Vec] = {**{Var(name): value for name, value in operands.items()}, **computed}

    def value(term: Expr) -> Vec:
        if term not in known:
            known[term] = _term(k, term, value, lanes)
        return known[term]

    return value(expr)


def _term(k: KernelBuilder, term: Expr, value: Callable[[Expr], Vec], lanes: int) -> Vec:
    if isinstance(term, Const):
        return k.constant(term.value, lanes)
    assert isinstance(term, Call), f"{term} has no value"
    if term.function == "add":
        product = next((a for a in term.args if isinstance(a, Call) and a.function == "mul"), None)
        if product is not None:
            rest = term.args[1] if term.args[0] is product else term.args[0]
            return k.fma(value(product.args[0]), value(product.args[1]), value(rest))
    arguments = [value(a) for a in term.args]
    if term.function in _TRANSCENDENTAL:
        return _TRANSCENDENTAL[term.function](k, arguments[0])
    if term.function == "neg":
        return arguments[0] * -1.0
    return k.compute(term.function, *arguments)
