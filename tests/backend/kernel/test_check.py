"""The verifier: valid kernels pass, every broken rule is named together with the statement."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from cnnc.backend.kernel.check import check_kernel
from cnnc.backend.kernel.ir import Affine, Compute, For, Kernel, Let, Literal, Load
from cnnc.backend.kernel.parser import parse_kernel
from cnnc.errors import VerifyError
from tests.kernel_strategies import kernels


@settings(max_examples=100, deadline=None)
@given(kernels())
def test_built_kernels_pass(kernel: Kernel) -> None:
    check_kernel(kernel)


def broken(body: str) -> str:
    """The message for a kernel of that body."""
    buffers = (
        "read x: f32[8,8], read labels: i32[8], readwrite s: f32[], readwrite n: i32[8], write y: f32[8]"
    )
    with pytest.raises(VerifyError) as error:
        check_kernel(parse_kernel(f"kernel k({buffers}) {{ {body} }}"))
    return str(error.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("for i in 0..2 images 1 {}", "for i in 0..2 images 1: a loop over images is parallel"),
        ("parallel for i in 1..2 images 1 {}", "a loop over images counts from 0 in steps of 1"),
        ("parallel for i in 0..4 step 2 images 1 {}", "a loop over images counts from 0 in steps of 1"),
        (
            "parallel for i in 0..2 images 1 { parallel for j in 0..2 { "
            "parallel for n in 0..2 images 3 {} } }",
            "parallel for n in 0..2 images 3: inside another loop over images",
        ),
        ("a = add x4 b, 1.0", "kernel k: a = add x4 b, 1.0: there is no value b here"),
        ("a = uniform x4 4294967296, 1.0, (0)", "the seed 4294967296 is no number of 32 bits"),
        ("a = copy x4 1.0 b = uniform x4 1, a, (0)", "an operand has 4 lanes where 1 are needed"),
        ("a = uniform x4 1, 1.0, (i)", "there is no loop variable i here"),
        ("a = copy x4 1.0 a = copy x4 a", "kernel k: a = copy x4 a: the name a is already used"),
        ("for i in 0..2 { a = copy x1 1.0 } b = copy x1 a", "b = copy x1 a: there is no value a here"),
        ("for i in 0..2 { reg t: f32x1[] = 0.0 } b = copy x1 t[]", "there is no tile t here"),
        ("for i in 0..2 {} for i in 0..2 {}", "for i in 0..2: the name i is already used"),
        ("for i in 0..2 { for i in 0..2 {} }", "for i in 0..2: the name i is already used"),
        ("a = copy x1 1.0 for a in 0..2 {}", "for a in 0..2: the name a is already used"),
        ("for i in 0..2 {} store x1 y[i], 1.0", "store x1 y[i], 1.0: there is no loop variable i here"),
        ("for i in 0..j {}", "for i in 0..j: there is no loop variable j here"),
        ("for i in 0..4 step 0 {}", "for i in 0..4 step 0: the step is at least 1"),
        ("for i in max()..4 {}", "a loop has at least one start and one stop"),
        ("a = copy x4 1.0 b = add x8 a, 1.0", "b = add x8 a, 1.0: an operand has 4 lanes where 8 are needed"),
        ("reg t: f32x4[2] = 0.0 b = copy x8 t[0]", "an operand has 4 lanes where 8 are needed"),
        ("reg t: f32x4[2] = 0.0 t[1] = copy x8 1.0", "an operand has 4 lanes where 8 are needed"),
        ("a = copy x4 1.0 store x8 y[0], a", "store x8 y[0], a: an operand has 4 lanes where 8 are needed"),
        ("a = copy x4 1.0 b = broadcast x8 a", "an operand has 4 lanes where 1 are needed"),
        ("a = copy x8 1.0 b = reduce add x8 a c = copy x8 b", "an operand has 1 lanes where 8 are needed"),
        ("a = copy x0 1.0", "there is at least 1 lane"),
        ("reg t: f32x4[2] = 0.0 b = copy x4 t[2]", "index [2] is outside tile t of shape [2]"),
        ("reg t: f32x4[2] = 0.0 t[0,0] = copy x4 1.0", "index [0, 0] is outside tile t of shape [2]"),
        ("reg t: f32x4[0] = 0.0", "every extent of a tile is at least 1"),
        ("reg t: f32x4[2] = 1e+39", "1e+39 is not a float32 number"),
        ("a = fma x4 1.0, 2.0", "a = fma x4 1.0, 2.0: fma takes 3 operands, not 2"),
        ("a = reduce mul x4 1.0", "a = reduce mul x4 1.0: mul is not add, max or min"),
        ("a = reduce add x6 1.0", "the lanes of a reduction are a power of two"),
        ("a = interleave middle x4 1.0, 2.0", "middle is not low or high"),
        ("a = interleave low x1 1.0, 2.0", "the lanes of vectors that are interleaved are even"),
        ("a = half middle x4 1.0", "middle is not low or high"),
        ("a = half low x1 1.0", "halves of a vector have more than 1 lane"),
        ("a = join x2 1.0, 2.0", "halves of a vector have more than 1 lane"),
        ("a = copy x4 1.0 b = join x4 a, 2.0", "an operand has 4 lanes where 2 are needed"),
        ("a = copy x4 1.0 b = half low x4 a", "an operand has 4 lanes where 8 are needed"),
        ("a = copy x4 1.0 b = interleave low x8 a, 2.0", "an operand has 4 lanes where 8 are needed"),
        ("a = load x4 z[0]", "there is no buffer z; the kernel has x, labels, s, n, y"),
        ("a = load x4 x[0]", "a = load x4 x[0]: 1 indices for x of rank 2"),
        ("a = load x4 x[0, 0] count 5", "count 5 is outside 1..4"),
        ("a = load x4 x[0, 0] count 0", "count 0 is outside 1..4"),
        ("a = load x4 s[] count 2", "count 2 for s, which is a scalar"),
        ("a = load x4 y[0]", "a = load x4 y[0]: y may only be written"),
        ("a = splat x4 y[0]", "a = splat x4 y[0]: y may only be written"),
        ("store x4 x[0, 0], 1.0", "store x4 x[0, 0], 1.0: x may only be read"),
        ("store x4 n[0], 1.0", "store x4 n[0], 1.0: n is i32, stores go to f32 buffers"),
        (
            "a = copy x1 1.0 parallel for i in 0..2 {}",
            "parallel for i in 0..2: does not enclose the whole kernel",
        ),
        ("parallel for i in 0..2 {} parallel for j in 0..2 {}", "does not enclose the whole kernel"),
        ("for j in 0..2 { parallel for i in 0..2 {} }", "parallel for i in 0..2: does not enclose"),
        ("parallel for i in 0..2 { a = copy x1 1.0 parallel for j in 0..2 {} }", "does not enclose"),
        (
            "parallel for i in 0..2 { parallel for j in 0..i {} }",
            "the bounds of a parallel loop must be constants",
        ),
    ],
)
def test_broken_rules(body: str, message: str) -> None:
    assert message in broken(body)


@pytest.mark.parametrize(
    ("buffers", "message"),
    [
        ("read x: f32[8], write x: f32[8]", "buffer x: declared more than once"),
        ("read x: f64[8]", "buffer x: dtype f64, not f32 or i32"),
        ("read x: f32[8,0]", "buffer x: shape (8, 0)"),
        ("scratch x: i32[8]", "buffer x: scratch memory is f32, not i32"),
        ("scratch x: f32[2,8] pitch 9", "buffer x: pitch 9"),
        ("read x: f32[2,8] pitch 7", "buffer x: pitch 7"),
        ("read x: f32[] pitch 1", "buffer x: pitch 1"),
    ],
)
def test_broken_buffers(buffers: str, message: str) -> None:
    with pytest.raises(VerifyError) as error:
        check_kernel(parse_kernel(f"kernel k({buffers}) {{ }}"))
    assert str(error.value) == f"kernel k: {message}"


KERNEL = parse_kernel("kernel k(read x: f32[8]) { for i in 0..8 { a = load x1 x[i] } }")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (Let("inf", Load("x", (Affine(),), 1, 1)), "'inf' is not a name"),
        (Let("a b", Load("x", (Affine(),), 1, 1)), "'a b' is not a name"),
        (Let("a", Compute("copy", (Literal(float("nan")),), 4)), "nan is not a float32 number"),
        (Let("a", Compute("cosh", (Literal(1.0),), 4)), "there is no function cosh"),
        (Let("a", Load("x", (Affine(0, (("i", 0),)),), 1, 1)), "there is no loop variable i here"),
    ],
)
def test_objects_that_no_text_gives(statement: Let, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        check_kernel(replace(KERNEL, body=(statement,)))


def test_terms_of_an_index_are_canonical() -> None:
    (loop,) = KERNEL.body
    assert isinstance(loop, For)
    unsorted = Let("a", Load("x", (Affine(0, (("i", 0),)),), 1, 1))
    with pytest.raises(VerifyError, match="sorted, unique and not zero"):
        check_kernel(replace(KERNEL, body=(replace(loop, body=(unsorted,)),)))
