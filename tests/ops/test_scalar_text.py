"""Text of scalar expressions: it parses back, and malformed text is one clear error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.errors import FormatError
from cnnc.ops.scalar import FUNCTIONS, Call, Const, Expr, Var
from cnnc.ops.scalar_text import parse_expr, print_expr

A, B, C = Var("a"), Var("b"), Var("c")


@st.composite
def any_call(draw: st.DrawFn, inner: st.SearchStrategy[Expr]) -> Expr:
    function = draw(st.sampled_from(sorted(FUNCTIONS)))
    return Call(function, tuple(draw(inner) for _ in range(FUNCTIONS[function].arity)))


ANY_EXPR = st.recursive(
    st.one_of(
        st.sampled_from(["a", "b", "lr", "beta1_power"]).map(Var), st.floats(allow_nan=False).map(Const)
    ),
    any_call,
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(ANY_EXPR)
def test_printed_text_parses_back(expr: Expr) -> None:
    assert parse_expr(print_expr(expr)) == expr


@pytest.mark.parametrize(
    ("text", "expr"),
    [
        ("a+b*c", A + B * C),
        ("(a+b)*c", (A + B) * C),
        ("a-b-c", (A - B) - C),
        ("a-(b-c)", A - (B - C)),
        ("a/b*c", (A / B) * C),
        ("-a*b", (-A) * B),
        ("-(a*b)", -(A * B)),
        ("-1.5e-3", Const(-1.5e-3)),
        ("-(1.0)", -Const(1.0)),
        (" 2 * a ", 2.0 * A),
        (".5*a", 0.5 * A),
        ("max(a, 0.0)", Call("max", (A, Const(0.0)))),
        ("select(a < b, c, 1)", Call("select_lt", (A, B, C, Const(1.0)))),
        ("select(a == b, c, 1)", Call("select_eq", (A, B, C, Const(1.0)))),
    ],
)
def test_parse(text: str, expr: Expr) -> None:
    assert parse_expr(text) == expr


@pytest.mark.parametrize(
    "text", ["a - (b - c)", "(a + b) * c", "-(a * b)", "a * -b", "select(a < b, -1.0, c)", "a / (b * c)"]
)
def test_canonical_text_prints_as_it_is(text: str) -> None:
    assert print_expr(parse_expr(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: expected a value, found 'the end'"),
        ("a +", "column 4: expected a value, found 'the end'"),
        ("a b", "column 3: expected 'the end', found 'b'"),
        ("(a", r"column 3: expected '\)', found 'the end'"),
        ("a ^ 2", "column 3: '\\^' is not part of the language"),
        ("gelu(a)", "column 1: unknown function 'gelu'; there are select, max"),
        ("1 + max(a)", "column 5: max takes 2 arguments, got 1"),
        ("select(a, b, c)", "expected '<' or '==', found ','"),
        ("select(a < b, c)", r"expected ',', found '\)'"),
        ("2a", "expected 'the end', found 'a'"),
        ("(" * 200 + "a" + ")" * 200, "nested deeper than 100"),
        ("-" * 300 + "a", "nested deeper than 100"),
        ("a" + "+a" * 300, "601 symbols; at most 500"),
    ],
)
def test_malformed_text_is_a_format_error(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_expr(text)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="ab01.e+-*/(),<= maxselt", max_size=30))
def test_no_text_gives_anything_but_a_format_error(text: str) -> None:
    try:
        expr = parse_expr(text)
    except FormatError:
        return
    assert parse_expr(print_expr(expr)) == expr
