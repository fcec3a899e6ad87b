"""Bounds proofs: right kernels are accepted, wrong ones refused, nothing accepted leaves a buffer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from cnnc.backend.kernel.bounds import prove_bounds
from cnnc.backend.kernel.check import check_kernel
from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import For, Kernel, Statement
from cnnc.backend.kernel.parser import parse_kernel
from cnnc.errors import VerifyError
from tests.kernel_enumeration import elements, out_of_bounds
from tests.kernel_strategies import arrays, kernels

BUFFERS = "read x: f32[56,64], write y: f32[50], scratch s: f32[3,8]"


def proven(body: str) -> int:
    kernel = parse_kernel(f"kernel k({BUFFERS}) {{ {body} }}")
    check_kernel(kernel)
    return prove_bounds(kernel)


@pytest.mark.parametrize(
    ("body", "accesses"),
    [
        ("a = splat x8 x[55, 63] b = load x8 x[0, 56] store x8 y[48], b count 2", 3),
        ("for i in 0..3 { store x8 s[i, 0], 1.0 a = load x4 s[-i + 2, 4] }", 2),
        ("for i in 0..54 { for r in 0..3 { a = load x8 x[i + r, 0] } }", 1),
        ("for i in 0..56 { for r in max(0, -i + 1)..min(3, -i + 57) { a = splat x8 x[i + r - 1, 0] } }", 1),
        (
            "for i in 0..28 { for r in max(0, -2*i + 3)..min(7, -2*i + 59) "
            "{ a = splat x8 x[2*i + r - 3, 0] } }",
            1,
        ),
        ("for i in 0..56 { a = load x8 x[-i + 55, 0] }", 1),
        ("for i in 0..64 step 16 { a = load x16 x[0, i] }", 1),
        ("for i in 0..40 step 16 { store x8 y[i], 1.0 }", 1),
        ("for i in 0..64 step 16 { store x16 y[i], 1.0 count 2 }", 1),
        ("for b in 0..7 { for i in 8*b..min(8*b + 8, 50) { store x1 y[i], 1.0 } }", 1),
        ("for i in 0..4 { for j in 4..4 { store x1 y[99], 1.0 } } store x1 y[0], 1.0", 1),
        ("reg t: f32x8[] = 0.0 t[] = load x8 x[0, 0]", 1),
        ("", 0),
    ],
)
def test_right_kernels_are_proven(body: str, accesses: int) -> None:
    assert proven(body) == accesses


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "for i in 0..56 { for r in 0..3 { a = load x8 x[i + r, 0] } }",
            "kernel k: a = load x8 x[i + r, 0]: index 0 of x ranges over 0..57, "
            "but the dimension has 56 elements",
        ),
        ("for i in 0..57 { a = splat x8 x[i - 1, 0] }", "index 0 of x ranges over -1..55"),
        ("a = load x8 x[0, 57]", "index 1 of x ranges over 57..64"),
        ("for i in 0..64 step 16 { store x16 y[i], 1.0 }", "index 0 of y ranges over 0..63"),
        ("for i in 0..4 { store x8 s[i, 0], 1.0 }", "index 0 of s ranges over 0..3"),
        (
            "for i in 0..56 { for r in max(0, -i)..min(3, -i + 57) { a = splat x8 x[i + r - 1, 0] } }",
            "index 0 of x ranges over -1..55",
        ),
        ("for b in 0..7 { for i in 8*b..8*b + 8 { store x1 y[i], 1.0 } }", "index 0 of y ranges over 0..55"),
        (
            "reg t: f32x8[] = 0.0 t[] = load x8 x[0, 60]",
            "t[] = load x8 x[0, 60]: index 1 of x ranges over 60..67",
        ),
    ],
)
def test_wrong_kernels_are_refused(body: str, message: str) -> None:
    with pytest.raises(VerifyError) as error:
        proven(body)
    assert message in str(error.value)


@settings(max_examples=300, deadline=None)
@given(kernels())
def test_what_is_proven_runs_inside_its_buffers(kernel: Kernel) -> None:
    try:
        prove_bounds(kernel)
    except VerifyError:
        if constant_bounds(kernel.body):
            assert out_of_bounds(kernel)  # the proof is exact where no loop is clamped
        return
    assert not out_of_bounds(kernel)
    interpret(kernel, arrays(kernel))


@settings(max_examples=100, deadline=None)
@given(kernels())
def test_the_interpreter_stops_at_the_first_access_outside(kernel: Kernel) -> None:
    if not any(elements(kernel)) or not out_of_bounds(kernel):
        interpret(kernel, arrays(kernel))
        return
    with pytest.raises(VerifyError, match="but the dimension has"):
        interpret(kernel, arrays(kernel))


def constant_bounds(block: tuple[Statement, ...]) -> bool:
    """Whether every loop of the block has constant bounds."""
    loops = [statement for statement in block if isinstance(statement, For)]
    return all(
        not any(bound.terms for bound in (*loop.starts, *loop.stops)) and constant_bounds(loop.body)
        for loop in loops
    )
