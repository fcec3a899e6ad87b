"""Conflict proofs: races are refused, nothing accepted races when enumerated or run in another order."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.bounds import prove_bounds
from cnnc.backend.kernel.check import check_kernel
from cnnc.backend.kernel.conflicts import prove_no_conflicts
from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernel.parser import parse_kernel
from cnnc.errors import VerifyError
from tests.kernel_enumeration import races
from tests.kernel_strategies import arrays, kernels

BUFFERS = (
    "read x: f32[64], readwrite s: f32[8,64], readwrite total: f32[], write y: f32[64], scratch t: f32[8]"
)


def kernel_of(body: str) -> Kernel:
    kernel = parse_kernel(f"kernel k({BUFFERS}) {{ {body} }}")
    check_kernel(kernel)
    prove_bounds(kernel)
    return kernel


@pytest.mark.parametrize(
    ("body", "pairs"),
    [
        ("store x8 y[0], 1.0 store x8 y[4], 1.0", 0),
        ("parallel for p in 0..64 { store x8 t[0], 1.0 a = load x1 t[3] store x1 y[p], a }", 1),
        ("parallel for p in 0..64 { store x1 y[p], 1.0 }", 1),
        ("parallel for p in 0..64 step 8 { store x8 y[p], 1.0 }", 1),
        ("parallel for p in 0..8 { a = load x8 x[0] store x8 y[8*p], a }", 1),
        ("parallel for p in 0..8 { store x8 y[-8*p + 56], 1.0 }", 1),
        ("parallel for p in 0..32 { for i in 0..2 { store x1 y[2*p + i], 1.0 } }", 1),
        ("parallel for p in 0..8 { for i in 8*p..min(8*p + 8, 60) { store x1 y[i], 1.0 } }", 1),
        ("parallel for p in 0..7 { for i in max(8*p, 3)..8*p + 8 { store x1 y[i], 1.0 } }", 1),
        (
            "parallel for p in 0..4 { for i in 0..4 { for j in 4*i..4*i + 4 { store x1 y[16*p + j], 1.0 }}}",
            1,
        ),
        ("parallel for p in 0..8 { parallel for q in 0..8 { store x8 y[8*p + q], 1.0 count 1 } }", 2),
        ("parallel for p in 0..8 { parallel for q in 0..8 { store x8 s[p, 8*q], 1.0 } }", 2),
        (
            "parallel for p in 0..8 { store x8 s[p, 8], 1.0 for i in 0..64 { b = load x1 s[p, i] } }",
            1,
        ),
        ("parallel for p in 0..1 { store x1 total[], 1.0 store x8 y[0], 2.0 }", 2),
        ("parallel for p in 4..8 step 4 { store x8 y[0], 2.0 }", 1),
        ("parallel for p in 0..30 { store x1 y[p], 1.0 store x1 y[p + 30], 1.0 }", 1),
        (
            "parallel for p in 0..4 { store x8 s[p, 0], 1.0 store x8 s[p, 8], 1.0 store x8 s[p + 4, 8], 1.0}",
            1,
        ),
    ],
)
def test_kernels_without_conflicts_are_proven(body: str, pairs: int) -> None:
    kernel = kernel_of(body)
    assert prove_no_conflicts(kernel) == pairs
    assert not races(kernel)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "parallel for p in 0..60 { store x4 y[p], 1.0 }",
            "kernel k: iterations of parallel loop p may touch the same elements of y, "
            "which they write: store x4 y[p], 1.0",
        ),
        (
            "parallel for p in 0..8 { store x1 y[0], 1.0 }",
            "elements of y, which they write: store x1 y[0], 1.0",
        ),
        ("parallel for p in 0..8 { store x1 total[], 1.0 }", "elements of total, which they write"),
        (
            "parallel for p in 0..7 { a = load x8 s[p + 1, 0] store x8 s[p, 0], a }",
            "a = load x8 s[p + 1, 0]; store",
        ),
        ("parallel for p in 0..8 { store x1 y[2*p], 1.0 store x1 y[p], 1.0 }", "parallel loop p"),
        ("parallel for p in 0..8 { parallel for q in 0..8 { store x1 y[p + q], 1.0 } }", "parallel loop p"),
        ("parallel for p in 0..8 { parallel for q in 0..8 { store x8 s[p, q], 1.0 } }", "parallel loop q"),
        ("parallel for p in 0..32 { for i in 0..3 { store x1 y[2*p - i + 1], 1.0 } }", "parallel loop p"),
        ("parallel for p in 0..7 { for i in 8*p..8*p + 9 { store x1 y[i], 1.0 } }", "parallel loop p"),
        ("parallel for p in 0..60 step 7 { store x8 y[p], 1.0 }", "store x8 y[p], 1.0"),
        ("parallel for p in 0..30 { store x1 y[p], 1.0 store x1 y[p + 29], 1.0 }", "parallel loop p"),
        ("parallel for p in 0..8 { store x1 y[p], 1.0 store x1 y[9], 1.0 }", "parallel loop p"),
    ],
)
def test_races_are_refused(body: str, message: str) -> None:
    kernel = parse_kernel(f"kernel k({BUFFERS}) {{ {body} }}")
    check_kernel(kernel)
    assert races(kernel)
    with pytest.raises(VerifyError) as error:
        prove_no_conflicts(kernel)
    assert message in str(error.value)


@settings(max_examples=400, deadline=None)
@given(kernels())
def test_what_is_proven_does_not_race(kernel: Kernel) -> None:
    try:
        prove_no_conflicts(kernel)
    except VerifyError:
        return
    assert not races(kernel)


@settings(max_examples=100, deadline=None)
@given(kernels(), st.integers(0, 99))
def test_what_is_proven_gives_the_same_bits_in_any_order(kernel: Kernel, seed: int) -> None:
    try:
        prove_bounds(kernel)
        prove_no_conflicts(kernel)
    except VerifyError:
        return
    orders = (iter, reversed, lambda r: random.Random(seed).sample(r, len(r)))
    results = [arrays(kernel, seed) for _ in orders]
    for order, buffers in zip(orders, results, strict=True):
        interpret(kernel, buffers, order)
    for name in results[0]:
        np.testing.assert_array_equal(results[0][name], results[1][name])
        np.testing.assert_array_equal(results[0][name], results[2][name])
