"""The scalar language: values against plain NumPy, derivatives against differences, simplification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.ops.scalar import (
    FUNCTIONS,
    Call,
    Const,
    Expr,
    Var,
    derive,
    evaluate,
    exp,
    lift,
    log,
    maximum,
    minimum,
    select_eq,
    select_lt,
    sigmoid,
    simplify,
    sqrt,
    substitute,
    tanh,
    variables,
)
from cnnc.ops.scalar_text import parse_expr, print_expr

A, B = Var("a"), Var("b")
SMOOTH = ("add", "sub", "mul", "neg", "tanh", "sigmoid")
FINITE = (*SMOOTH, "max", "min", "select_lt")


def expressions(functions: tuple[str, ...]) -> st.SearchStrategy[Expr]:
    leaves = st.one_of(st.sampled_from([A, B]), st.sampled_from([0.0, 1.0, -1.0, 0.5, -2.0, 3.25]).map(Const))

    def grown(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        return st.sampled_from(functions).flatmap(
            lambda f: st.tuples(*[inner] * FUNCTIONS[f].arity).map(lambda args: Call(f, args))
        )

    return st.recursive(leaves, grown, max_leaves=8)


def at(expr: Expr, a: float, b: float = 0.0) -> float:
    return float(evaluate(expr, {"a": np.asarray(a), "b": np.asarray(b)}))


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (A + 2.0, 3.5),
        (2.0 - A, 0.5),
        (3.0 * A / 2.0, 2.25),
        (-A, -1.5),
        (1.0 / A, 1 / 1.5),
        (maximum(A, 2.0), 2.0),
        (minimum(A, 2.0), 1.5),
        (exp(A), np.exp(1.5)),
        (log(A), np.log(1.5)),
        (sqrt(A), np.sqrt(1.5)),
        (tanh(A), np.tanh(1.5)),
        (sigmoid(A), 1 / (1 + np.exp(-1.5))),
        (select_lt(A, 1.5, 7, 8), 8.0),
        (select_lt(A, 1.6, 7, 8), 7.0),
        (select_eq(A, 1.5, 7, 8), 7.0),
    ],
)
def test_values(expr: Expr, expected: float) -> None:
    assert at(expr, 1.5) == pytest.approx(expected, rel=1e-15)


def test_evaluation_stays_in_the_operands_dtype() -> None:
    expr = sigmoid(A * 0.1 + 1e-3)
    assert evaluate(expr, {"a": np.ones(3, np.float32)}).dtype == np.float32
    assert evaluate(expr, {"a": np.ones((), np.float32)}).dtype == np.float32
    assert evaluate(expr, {"a": np.ones(3)}).dtype == np.float64


def test_sigmoid_saturates_without_warning() -> None:
    np.testing.assert_array_equal(evaluate(sigmoid(A), {"a": np.array([-1e4, 1e4])}), [0.0, 1.0])


@pytest.mark.parametrize(
    ("formula", "derivative"),
    [
        ("max(a, 0.0)", "select(0.0 < max(a, 0.0), 1.0, 0.0)"),
        ("tanh(a)", "1.0 - tanh(a) * tanh(a)"),
        ("sigmoid(a)", "sigmoid(a) * (1.0 - sigmoid(a))"),
        ("exp(a)", "exp(a)"),
        ("log(a)", "1.0 / a"),
        ("a * a", "a + a"),
        ("a * b", "b"),
        ("a - b", "1.0"),
        ("b - a", "-1.0"),
        ("a / b", "1.0 / b"),
        ("b", "0.0"),
        ("3.0 * a + b", "3.0"),
        ("select(a < b, a, 2.0 * a)", "select(a < b, 1.0, 2.0)"),
        ("max(a, 0.1 * a)", "select(0.1 * a < max(a, 0.1 * a), 1.0, 0.1)"),
    ],
)
def test_derivatives(formula: str, derivative: str) -> None:
    assert print_expr(derive(parse_expr(formula), "a")) == derivative


def test_relu_has_slope_zero_at_zero() -> None:
    slope = derive(maximum(A, 0.0), "a")
    assert [at(slope, x) for x in (-1.0, 0.0, 1.0)] == [0.0, 0.0, 1.0]


@settings(deadline=None, max_examples=150)
@given(expressions(SMOOTH), st.floats(-1, 1), st.floats(-1, 1))
def test_derivative_agrees_with_differences(expr: Expr, a: float, b: float) -> None:
    h = 1e-5
    numeric = (at(expr, a + h, b) - at(expr, a - h, b)) / (2 * h)
    curvature = abs(at(derive(derive(derive(expr, "a"), "a"), "a"), a, b))
    scale = max(1.0, abs(at(expr, a, b)), curvature)
    assert at(derive(expr, "a"), a, b) == pytest.approx(numeric, rel=1e-6, abs=1e-7 * scale)


@pytest.mark.parametrize("formula", ["log(a)", "sqrt(a)", "1.0 / a", "exp(-a / b)", "min(a, b) * max(a, b)"])
def test_derivative_on_positive_numbers(formula: str) -> None:
    expr, h = parse_expr(formula), 1e-5
    for a, b in ((0.5, 2.0), (1.7, 0.3), (3.0, 3.5)):
        numeric = (at(expr, a + h, b) - at(expr, a - h, b)) / (2 * h)
        assert at(derive(expr, "a"), a, b) == pytest.approx(numeric, rel=1e-8)


@settings(deadline=None, max_examples=200)
@given(expressions(FINITE), st.floats(-2, 2), st.floats(-2, 2))
def test_simplify_preserves_the_value(expr: Expr, a: float, b: float) -> None:
    assert at(simplify(expr), a, b) == pytest.approx(at(expr, a, b), rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(expressions((*FINITE, "div", "exp", "log", "sqrt", "select_eq")))
def test_simplify_is_idempotent(expr: Expr) -> None:
    once = simplify(expr)
    assert simplify(once) == once


@pytest.mark.parametrize(
    ("formula", "simple"),
    [
        ("a + 0.0", "a"),
        ("0.0 - a", "-a"),
        ("1.0 * a / 1.0", "a"),
        ("--a", "a"),
        ("-1.0 * a * -1.0", "a"),
        ("a * 0.0 + b", "b"),
        ("b * select(0.0 < a, 1.0, 0.0)", "select(0.0 < a, b, 0.0)"),
        ("select(1.0 < 2.0, a, b)", "a"),
        ("select(a == b, a, a)", "a"),
        ("max(a, a)", "a"),
        ("2.0 * 3.0 + a", "6.0 + a"),
        ("a * (1.0 / b)", "a / b"),
        ("a - -b", "a + b"),
        ("1.0 / 0.0", "1.0 / 0.0"),
    ],
)
def test_simplify(formula: str, simple: str) -> None:
    assert print_expr(simplify(parse_expr(formula))) == simple


def test_substitute_replaces_the_outermost_match() -> None:
    expr = parse_expr("tanh(a) * tanh(tanh(a))")
    assert substitute(expr, {tanh(A): B}) == B * tanh(B)
    assert substitute(expr, {A: B, tanh(tanh(A)): A}) == tanh(B) * A


def test_variables_in_order_of_appearance() -> None:
    assert variables(parse_expr("b * max(a, b) + c")) == ("b", "a", "c")
    assert variables(lift(2)) == ()
