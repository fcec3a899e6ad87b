"""Text -> kernel: the inverse of the printer, and errors with their place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.ir import Affine, Assign, Declare, For, Kernel, Let, Load, Name, Reg, Store
from cnnc.backend.kernel.parser import parse_kernel
from cnnc.backend.kernel.printer import print_kernel
from cnnc.errors import FormatError
from tests.kernel_strategies import kernels


@settings(max_examples=150, deadline=None)
@given(kernels())
def test_parse_inverts_print(kernel: Kernel) -> None:
    text = print_kernel(kernel)
    assert parse_kernel(text) == kernel
    assert print_kernel(parse_kernel(text)) == text


def test_line_breaks_and_spaces_mean_nothing() -> None:
    spread = """
      kernel k(read x: f32[8],
               write y: f32[8])
      { parallel for i in 0 .. 8 step 4
        { a = load x4 x [ i ]   store x4 y[i], a count 3 } }"""
    (loop,) = parse_kernel(spread).body
    assert isinstance(loop, For) and loop.parallel and loop.step == 4
    index = (Affine.variable("i"),)
    assert loop.body == (Let("a", Load("x", index, 4, 4)), Store("y", index, Name("a"), 4, 3))


def test_a_tile_of_rank_zero() -> None:
    body = parse_kernel("kernel k() { reg t: f32x8[] = 1e-05 t[] = copy x8 t[] }").body
    assert body[0] == Declare("t", 8, (), 1e-5)
    assert isinstance(body[1], Assign) and body[1].target == Reg("t", ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.k:1: expected 'kernel', found 'end of text'"),
        ("kernel k() {", "f.k:1: expected a name, found 'end of text'"),
        ("kernel k() {\n}\n}", "f.k:3: expected the end of the text, found '}'"),
        ("kernel k(x: f32[2]) {}", "f.k:1: expected read, write, readwrite, stream or scratch, found 'x'"),
        ("kernel k(read x: f32[n]) {}", "f.k:1: expected an integer, found 'n'"),
        ("kernel k() {\n  a = frob x8 1.0\n}", "f.k:2: expected an instruction, found 'frob'"),
        ("kernel k() {\n  a = add 8 1.0, 2.0\n}", "f.k:2: expected a number of lanes such as x8, found '8'"),
        ("kernel k() {\n  a = load x8 y[2*3]\n}", "f.k:2: expected a name, found '3'"),
        ("kernel k() {\n\n for i in 0..n..4 {} }", "f.k:3: expected '{', found '..'"),
        (
            "kernel k() {\n  reg t: f32[2] = 0.0 }",
            "f.k:2: expected a number of lanes such as f32x8, found 'f32'",
        ),
        ("kernel k() {\n  for = copy x1 1.0 }", "f.k:2: expected a name, found '='"),
        ("kernel k() {\n  a = copy x1 -b }", "f.k:2: expected a number, found 'b'"),
        ("kernel k() { a = copy x1 1.0 ; }", "f.k:1: unexpected character ';'"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(FormatError) as error:
        parse_kernel(text, "f.k")
    assert str(error.value) == message


@settings(max_examples=100, deadline=None)
@given(kernels(), st.data())
def test_damaged_text_is_a_format_error_or_another_kernel(kernel: Kernel, data: st.DataObject) -> None:
    text = print_kernel(kernel)
    cut = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:cut] + data.draw(st.sampled_from(("", "(", "]", "x", "7", "#"))) + text[cut + 1 :]
    try:
        parse_kernel(damaged)
    except FormatError as error:
        assert str(error).startswith("<text>:")
