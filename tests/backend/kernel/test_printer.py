"""The text form of kernels: the printed form of every statement."""

from __future__ import annotations

import pytest

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Access, Affine
from cnnc.backend.kernel.printer import headline, print_affine, print_kernel

EVERYTHING = """\
kernel k(read x: f32[58,64], read n: i32[16], readwrite t: f32[], write y: f32[56,64], scratch s: f32[4,8]) {
  parallel for oy in 0..56 {
    reg acc: f32x8[2,1] = -inf
    for r in max(0, -oy + 1)..min(3, -oy + 57) {
      v0 = splat x8 x[oy + r, 0]
      v1 = load x8 x[2*oy - r + 1, 8] count 6
      acc[1,0] = fma x8 v0, v1, acc[1,0]
    }
    for c in 0..64 step 16 {
      v3 = index x8 (oy + 2)
      v4 = reduce max x8 acc[0,0]
      v5 = broadcast x8 v4
      v6 = select_lt x8 v3, 0.5, v5, v3
      store x8 y[oy, c], v6
      store x8 y[oy, c + 8], acc[1,0] count 3
      store x8 s[1, 0], v6
    }
    v7 = load x1 t[]
    v8 = load x8 n[oy - 3]
    v9 = uniform x8 4294967295, v7, (8*oy)
    v10 = interleave low x8 v8, v9
    v11 = interleave high x8 v8, v9
    v12 = join x16 v8, v9
    v13 = half low x8 v12
    v14 = half high x8 v12
  }
}
"""


def everything() -> KernelBuilder:
    k = KernelBuilder("k")
    x, labels = k.buffer("x", (58, 64), Access.READ), k.buffer("n", (16,), Access.READ, "i32")
    total, y = k.buffer("t", (), Access.READWRITE), k.buffer("y", (56, 64), Access.WRITE)
    scratch = k.scratch("s", (4, 8))
    with k.loop("oy", 0, 56, parallel=True) as oy:
        acc = k.register("acc", 8, (2, 1), float("-inf"))
        with k.loop("r", (0, 1 - oy), (3, 57 - oy)) as r:
            broadcast = x.splat((oy + r, 0), 8)
            acc[1, 0] = k.fma(broadcast, x.load((2 * oy - r + 1, 8), 8, 6), acc[1, 0])
        with k.loop("c", 0, 64, 16) as c:
            place = k.index(oy + 2, 8)
            largest = k.broadcast(k.reduce("max", acc[0, 0]), 8)
            chosen = k.compute("select_lt", place, 0.5, largest, place)
            y.store((oy, c), chosen)
            y.store((oy, c + 8), acc[1, 0], 3)
            scratch.store((1, 0), chosen)
        step = total.load((), 1)
        numbers = labels.load((oy - 3,), 8)
        drawn = k.uniform(2**32 - 1, step, 8 * oy, 8)
        k.interleave("low", numbers, drawn)
        k.interleave("high", numbers, drawn)
        k.halves(k.join(numbers, drawn))
    return k


def test_every_statement_prints_as_documented() -> None:
    assert print_kernel(everything().build()) == EVERYTHING


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (Affine(), "0"),
        (Affine(-3), "-3"),
        (Affine.of(0, {"i": -1}), "-i"),
        (Affine.of(-1, {"r": 1, "oy": 2}), "2*oy + r - 1"),
        (Affine.of(7, {"a": -4, "b": -1}), "-4*a - b + 7"),
    ],
)
def test_affine(expression: Affine, text: str) -> None:
    assert print_affine(expression) == text


def test_headline_of_a_loop_leaves_out_the_body() -> None:
    assert headline(everything().build().body[0]) == "parallel for oy in 0..56"
