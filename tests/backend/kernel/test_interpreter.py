"""What kernels compute, statement by statement, when NumPy runs them."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.check import check_kernel
from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Access
from cnnc.backend.kernel.parser import parse_kernel
from cnnc.errors import ShapeError, VerifyError
from cnnc.ir.types import Array


def run(body: str, size: int = 8) -> Array:
    """y after a kernel of that body, with x = 1, 2, 3, ... and labels = 10, 11, 12, ..."""
    buffers = f"read x: f32[2,8], read labels: i32[8], readwrite s: f32[], write y: f32[{size}]"
    kernel = parse_kernel(f"kernel k({buffers}) {{ {body} }}")
    check_kernel(kernel)
    y = np.full(size, -1, np.float32)
    x = np.arange(1, 17, dtype=np.float32).reshape(2, 8)
    labels, scalar = np.arange(10, 18, dtype=np.int32), np.array(5, np.float32)
    interpret(kernel, {"x": x, "labels": labels, "s": scalar, "y": y})
    return np.append(y, scalar)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("v = load x4 x[1, 2] store x4 y[1], v", [-1, 11, 12, 13, 14, -1, -1, -1, 5]),
        ("v = load x4 x[1, 6] count 2 store x4 y[0], v", [15, 16, 0, 0, -1, -1, -1, -1, 5]),
        ("v = load x4 x[0, 0] store x4 y[6], v count 2", [-1, -1, -1, -1, -1, -1, 1, 2, 5]),
        ("v = splat x4 x[0, 3] store x4 y[0], v", [4, 4, 4, 4, -1, -1, -1, -1, 5]),
        ("v = load x4 labels[4] store x4 y[0], v", [14, 15, 16, 17, -1, -1, -1, -1, 5]),
        ("v = splat x4 labels[4] store x4 y[0], v", [14, 14, 14, 14, -1, -1, -1, -1, 5]),
        ("v = splat x4 s[] store x4 y[0], v", [5, 5, 5, 5, -1, -1, -1, -1, 5]),
        ("v = load x4 s[] count 1 store x4 y[0], v store x1 s[], 2.5", [5, 0, 0, 0, -1, -1, -1, -1, 2.5]),
        ("v = load x4 x[0, 2] store x4 s[], v count 1", [-1, -1, -1, -1, -1, -1, -1, -1, 3]),
        ("for i in 0..2 { v = index x4 (3*i - 1) store x4 y[4*i], v }", [-1, 0, 1, 2, 2, 3, 4, 5, 5]),
        ("a = load x4 x[0, 0] b = reduce add x4 a store x1 y[0], b", [10, -1, -1, -1, -1, -1, -1, -1, 5]),
        (
            "a = load x4 x[0, 0] b = reduce max x4 a c = broadcast x2 b store x2 y[0], c",
            [4, 4, -1, -1, -1, -1, -1, -1, 5],
        ),
        (
            "a = load x4 x[0, 0] b = interleave low x4 a, 9.0 store x4 y[0], b",
            [1, 9, 2, 9, -1, -1, -1, -1, 5],
        ),
        (
            "a = load x4 x[0, 0] b = interleave high x4 9.0, a store x4 y[0], b",
            [9, 3, 9, 4, -1, -1, -1, -1, 5],
        ),
        (
            "a = load x2 x[0, 1] b = join x4 9.0, a store x4 y[0], b",
            [9, 9, 2, 3, -1, -1, -1, -1, 5],
        ),
        (
            "a = load x4 x[0, 0] b = half low x2 a c = half high x2 a store x2 y[0], c store x2 y[3], b",
            [3, 4, -1, 1, 2, -1, -1, -1, 5],
        ),
        (
            # the upper 24 bits of Philox's known answer for a key and counters of zeros
            "a = uniform x1 0, 0.0, (0) b = mul x1 a, 16777216.0 store x1 y[0], b",
            [0xFF1DAE, -1, -1, -1, -1, -1, -1, -1, 5],
        ),
        ("for i in 1..8 step 3 { store x1 y[i], 7.0 }", [-1, 7, -1, -1, 7, -1, -1, 7, 5]),
        ("for i in 3..3 { store x1 y[i], 7.0 }", [-1] * 8 + [5]),
        (
            "for i in 0..3 { for j in max(1, 2*i)..min(i + 2, 6) { store x1 y[2*i + j], 7.0 } }",
            [-1, 7, -1, -1, 7, -1, -1, -1, 5],  # (0, 1), (1, 2); nothing for i = 2
        ),
        (
            "for i in 0..2 { reg t: f32x1[2] = 1.0 t[1] = add x1 t[1], t[0] store x1 y[i], t[1] }",
            [2, 2, -1, -1, -1, -1, -1, -1, 5],  # the tile starts anew in each iteration
        ),
        (
            "reg t: f32x1[1] = 1.0 for i in 0..8 { store x1 y[i], t[0] t[0] = add x1 t[0], t[0] }",
            [1, 2, 4, 8, 16, 32, 64, 128, 5],
        ),
        ("store x1 s[], 1.0 a = load x1 s[] store x1 s[], 2.0 store x1 y[0], a", [1] + [-1] * 7 + [2]),
    ],
)
def test_statements(body: str, expected: list[float]) -> None:
    np.testing.assert_array_equal(run(body), np.array(expected, np.float32))


def test_scratch_is_forgotten_from_one_iteration_to_the_next() -> None:
    text = """
kernel k(scratch s: f32[4], write y: f32[3,4]) {
  parallel for i in 0..3 {
    a = load x4 s[0]
    store x4 y[i, 0], a
    store x2 s[0], 1.0
    b = load x1 s[1]
    store x1 y[i, 3], b
    store x4 s[0], 5.0
  }
}
"""
    y = np.zeros((3, 4), np.float32)
    interpret(parse_kernel(text), {"y": y})
    np.testing.assert_array_equal(y, [[np.nan, np.nan, np.nan, 1]] * 3)


def test_direct_convolution() -> None:
    """The design's example in small: a register tile of 2 pixels by 4 channels, clamped borders."""
    k = KernelBuilder("conv")
    x, w = k.buffer("x", (5, 6, 3), Access.READ), k.buffer("w", (3, 3, 3, 4), Access.READ)
    y = k.buffer("y", (5, 4, 4), Access.WRITE)
    with k.loop("oy", 0, 5, parallel=True) as oy, k.loop("ox", 0, 4, 2) as ox:
        acc = k.register("acc", 4, (2,))
        with k.loop("r", (0, 1 - oy), (3, 6 - oy)) as r, k.loop("s", 0, 3) as s, k.loop("c", 0, 3) as c:
            weights = w.load((r, s, c, 0), 4)
            for pixel in range(2):
                value = x.splat((oy + r - 1, ox + s + pixel, c), 4)
                acc[(pixel,)] = k.fma(value, weights, acc[(pixel,)])
        for pixel in range(2):
            y.store((oy, ox + pixel, 0), acc[(pixel,)])
    rng = np.random.default_rng(1)
    image, filters = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 6, 3), (3, 3, 3, 4)))
    result = np.zeros((5, 4, 4), np.float32)
    interpret(k.build(), {"x": image, "w": filters, "y": result})

    padded = np.pad(image, ((1, 1), (0, 0), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    np.testing.assert_allclose(result, np.einsum("yxcrs,rsck->yxk", windows, filters), rtol=1e-5, atol=1e-5)


def test_parallel_loops_run_in_the_order_asked_for() -> None:
    body = "parallel for p in 0..4 { store x1 last[], 0.0 a = index x1 (p) store x1 last[], a }"
    kernel = parse_kernel(f"kernel k(write last: f32[]) {{ {body} }}")
    last = np.zeros((), np.float32)
    interpret(kernel, {"last": last})
    assert last == 3
    interpret(kernel, {"last": last}, order=reversed)
    assert last == 0


SIMPLE = parse_kernel("kernel k(read x: f32[4]) { for i in 0..2 { v = load x2 x[2*i + 1] } }")


def test_an_access_outside_is_an_error() -> None:
    with pytest.raises(VerifyError) as error:
        interpret(SIMPLE, {"x": np.zeros(4, np.float32)})
    assert (
        str(error.value) == "kernel k: index 0 of x is 3..4 with {'i': 1}, but the dimension has 4 elements"
    )


@pytest.mark.parametrize(
    ("buffers", "message"),
    [
        ({}, "kernel k: no array for buffer x"),
        ({"x": np.zeros(5, np.float32)}, r"kernel k: buffer x is f32\[4\], the array is float32\[5\]"),
        ({"x": np.zeros(4)}, r"kernel k: buffer x is f32\[4\], the array is float64\[4\]"),
    ],
)
def test_arrays_that_do_not_fit(buffers: dict[str, Array], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        interpret(SIMPLE, buffers)
