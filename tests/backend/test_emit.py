"""Compiled kernels against the interpreter, bit for bit, on every target that this machine runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnc.backend.emit import emit_kernel, kernel_symbol
from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.check import check_kernel
from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Access, Assign, Compute, For, Kernel, Let, Name, Statement
from cnnc.backend.kernel.math import exp, log, sigmoid, tanh
from cnnc.backend.kernel.nest import iterations, trip_count
from cnnc.backend.kernel.parser import parse_kernel
from cnnc.backend.llvm import CodeGenerator
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.types import Array
from tests.kernel_enumeration import out_of_bounds
from tests.kernel_strategies import arrays, kernels
from tests.native_kernels import NativeKernel, assert_same_bits, on_runnable_targets

PARTIAL = frozenset({"exp2i", "exponent", "mantissa"})
"""Functions that are not defined for every number; tests of their own feed them what they are for."""


def lowered(kernel: Kernel, target: Target) -> Kernel:
    """The kernel as the target computes it: without FMA units a product is rounded before it is added.

    Functions that do not take every number become copies.
    """
    return replace(kernel, body=_lowered(kernel.body, target, itertools.count()))


def _lowered(body: tuple[Statement, ...], target: Target, numbers: Iterator[int]) -> tuple[Statement, ...]:
    statements: list[Statement] = []
    for statement in body:
        if isinstance(statement, For):
            statements.append(replace(statement, body=_lowered(statement.body, target, numbers)))
        elif isinstance(statement, Let | Assign) and isinstance(statement.instruction, Compute):
            product = f"product{next(numbers)}"
            before, last = _steps(statement.instruction, target, product)
            statements += [*before, replace(statement, instruction=last)]
        else:
            statements.append(statement)
    return tuple(statements)


def _steps(compute: Compute, target: Target, product: str) -> tuple[tuple[Let, ...], Compute]:
    operands, lanes = compute.operands, compute.lanes
    if compute.function in PARTIAL:
        return (), Compute("copy", operands, lanes)
    if compute.function != "fma" or target.has_fma:
        return (), compute
    rounded = Let(product, Compute("mul", operands[:2], lanes))
    return (rounded,), Compute("add", (Name(product), operands[2]), lanes)


def check(
    kernel: Kernel,
    target: Target,
    feeds: dict[str, Array],
    cuts: tuple[int, ...] = (),
    images: int | None = None,
) -> None:
    """The compiled kernel leaves what the interpreter leaves."""
    check_kernel(kernel)
    expected, found = ({name: array.copy() for name, array in feeds.items()} for _ in range(2))
    interpret(lowered(kernel, target), expected, images=images)
    NativeKernel.compile(kernel, target).run(found, cuts, as_task=bool(cuts), images=images)
    for name, array in expected.items():
        assert_same_bits(found[name], array)


@on_runnable_targets
@given(kernel=kernels(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_random_kernels(target: Target, kernel: Kernel, data: st.DataObject) -> None:
    assume(not out_of_bounds(kernel))
    total, loop = lowered(kernel, replace(target, has_fma=True)), kernel.image_loop
    images = data.draw(st.integers(1, loop.images * trip_count(loop))) if loop else None
    check(total, target, arrays(total), (iterations(total, images) // 2,), images)


def unary(function: Callable[[KernelBuilder, Vec], Vec], lanes: int, count: int) -> Kernel:
    """y = function(x), `count` elements by `count`."""
    k = KernelBuilder("unary")
    x, y = k.buffer("x", (64 * count,), Access.READ), k.buffer("y", (64 * count,), Access.WRITE)
    with k.loop("i", 0, 64 * count, count) as i:
        y.store((i,), function(k, x.load((i,), lanes, count)), count)
    return k.build()


def check_function(
    function: Callable[[KernelBuilder, Vec], Vec], target: Target, values: Array, lanes: int | None = None
) -> None:
    """A function of one vector on these values, which are repeated to fill the kernel's buffer."""
    width = lanes or target.lanes
    feeds = {name: np.resize(values, 64 * width).astype(np.float32) for name in ("x", "y")}
    check(unary(function, width, width), target, feeds)


SPECIAL = np.array(
    [0.0, -0.0, 0.3, -0.3, 0.5, -0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1e20, -1e20]
    + [s * (2.0**p + d) for p in (21, 22, 23, 24) for d in (-1, -0.5, 0.5, 1) for s in (1, -1)],
    np.float32,
)


@on_runnable_targets
@pytest.mark.parametrize("lanes", [1, None], ids=["scalar", "vector"])
@pytest.mark.parametrize("function", ["round", "sqrt", "copy"])
def test_total_functions_on_special_numbers(function: str, lanes: int | None, target: Target) -> None:
    check_function(lambda k, v: k.compute(function, v), target, SPECIAL, lanes)


@on_runnable_targets
@pytest.mark.parametrize("lanes", [1, None], ids=["scalar", "vector"])
@pytest.mark.parametrize(
    ("function", "values"),
    [
        ("exp2i", np.arange(-126, 128)),
        ("exponent", np.geomspace(1.2e-38, 3.4e38, 500)),
        ("mantissa", np.geomspace(1.2e-38, 3.4e38, 500)),
    ],
)
def test_partial_functions(function: str, values: Array, lanes: int | None, target: Target) -> None:
    width = lanes or target.lanes
    kernel = unary(lambda k, v: k.compute(function, v), width, width)
    for start in range(0, len(values), 64 * width):
        x = np.resize(values[start:], 64 * width).astype(np.float32)
        expected, found = ({"x": x.copy(), "y": np.zeros_like(x)} for _ in range(2))
        interpret(kernel, expected)
        NativeKernel.compile(kernel, target).run(found)
        assert_same_bits(found["y"], expected["y"])


@on_runnable_targets
@pytest.mark.parametrize("function", [exp, log, tanh, sigmoid], ids=lambda f: str(f.__name__))
def test_math(function: Callable[[KernelBuilder, Vec], Vec], target: Target) -> None:
    """The functions written in the kernel language: the interpreter's bits with FMA, close without."""
    x = np.concatenate([np.linspace(-100, 100, 64 * target.lanes - 5), [0.0, np.inf, -np.inf, np.nan, 1.0]])
    x = x.astype(np.float32)
    kernel = unary(function, target.lanes, target.lanes)
    expected, found = ({"x": x.copy(), "y": np.zeros_like(x)} for _ in range(2))
    interpret(kernel, expected)
    NativeKernel.compile(kernel, target).run(found)
    if target.has_fma:
        assert_same_bits(found["y"], expected["y"])
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-6, atol=1e-30)


@on_runnable_targets
@pytest.mark.parametrize("dtype", ["f32", "i32"])
@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
def test_partial_loads_and_stores_stay_inside(lanes: int, dtype: str, target: Target) -> None:
    """Every count of every width, at the very end of a buffer behind which no byte may be read."""
    for count in range(1, lanes + 1):
        k = KernelBuilder("ends")
        x = k.buffer("x", (count,), Access.READ, dtype)
        y = k.buffer("y", (2, count), Access.READWRITE)
        value = x.load((0,), lanes, count)
        y.store((1, 0), value + y.load((1, 0), lanes, count), count)
        k.buffer("whole", (lanes,), Access.WRITE).store((0,), value)
        kernel = k.build()
        check(kernel, target, arrays(kernel))


STREAMED = """
kernel streamed(read x: f32[6,40], stream y: f32[6,48]) {
  parallel for i in 0..6 {
    for j in 0..32 step 16 {
      v0 = load x8 x[i, j]
      v1 = load x8 x[i, j + 8]
      v2 = add x8 v0, 1.0
      store x8 y[i, j + 8], v2
      store x8 y[i, j], v1
    }
    v3 = load x8 x[i, 32]
    store x8 y[i, 32], v3
    v4 = load x4 x[i, 36]
    store x4 y[i, 40], v4
    store x4 y[i, 44], v4 count 3
  }
}
"""


@on_runnable_targets
def test_whole_lines_go_past_the_caches(target: Target) -> None:
    kernel = parse_kernel(STREAMED)
    check(kernel, target, arrays(kernel), (2,))
    text = emit_kernel(kernel, target)
    assert text.count("!nontemporal") == 2, "the line of which an element is missing is stored as ever"
    assert ("sfence" in text) == target.triple.startswith("x86")


CLAMPED = """
kernel clamped(read x: f32[9], write y: f32[6,4]) {
  for i in 0..6 {
    reg acc: f32x4[2] = 1.5
    for r in max(0, 3 - i)..min(4, i) step 2 {
      for s in max(i - 4, 2)..min(r, 3) {
        v0 = splat x4 x[r + s]
        acc[0] = add x4 acc[0], v0
      }
      v1 = splat x4 x[r]
      acc[1] = mul x4 acc[1], v1
    }
    v2 = add x4 acc[0], acc[1]
    store x4 y[i, 0], v2
  }
}
"""


@on_runnable_targets
def test_clamped_loops_that_may_not_run(target: Target) -> None:
    kernel = parse_kernel(CLAMPED)
    check(kernel, target, arrays(kernel))


@on_runnable_targets
def test_reductions_halve_pairwise(target: Target) -> None:
    for function in ("add", "max", "min"):
        for lanes in (2, 4, 8, 16, 32):
            k = KernelBuilder("reduction")
            x, y = k.buffer("x", (3, lanes), Access.READ), k.buffer("y", (3, 1), Access.WRITE)
            with k.loop("i", 0, 3) as i:
                y.store((i, 0), k.reduce(function, x.load((i, 0), lanes)))
            kernel = k.build()
            check(kernel, target, arrays(kernel))


@on_runnable_targets
@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32])
def test_a_square_is_transposed(size: int, target: Target) -> None:
    k = KernelBuilder("transposition")
    x, y = k.buffer("x", (size, size), Access.READ), k.buffer("y", (size, size), Access.WRITE)
    for i, column in enumerate(k.transposed([x.load((i, 0), size) for i in range(size)], size)):
        y.store((i, 0), column)
    kernel = k.build()
    feeds = arrays(kernel)
    check(kernel, target, feeds)
    found = {name: array.copy() for name, array in feeds.items()}
    interpret(kernel, found)
    np.testing.assert_array_equal(found["y"], feeds["x"].T)


NEST = """
kernel nest(write y: f32[3,4,7]) {
  parallel for a in 0..3 {
    parallel for b in max(1, 0)..min(4, 9) step 2 {
      parallel for c in 1..7 step 3 {
        v0 = index x1 (100*a + 10*b + c)
        store x1 y[a, b, c], v0
      }
    }
  }
}
"""


@on_runnable_targets
@pytest.mark.parametrize("cuts", [(), (1,), (5, 6, 6, 11), (0, 12)])
def test_iterations_of_a_nest_may_be_cut_anywhere(cuts: tuple[int, ...], target: Target) -> None:
    kernel = parse_kernel(NEST)
    assert iterations(kernel) == 12
    check(kernel, target, arrays(kernel), cuts)


@on_runnable_targets
@pytest.mark.parametrize("marked", ["a in 0..3", "b in 0..4", "c in 0..7"])
@pytest.mark.parametrize("each", [1, 2, 3])
def test_a_loop_over_images_runs_for_those_there_are(marked: str, each: int, target: Target) -> None:
    text = NEST.replace("max(1, 0)..min(4, 9) step 2", "0..4").replace("1..7 step 3", "0..7")
    kernel = parse_kernel(text.replace(marked, f"{marked} images {each}"))
    extents = {"a": 3, "b": 4, "c": 7}
    for images in range(1, each * extents[marked[0]] + 1):
        trips = -(-images // each)
        assert iterations(kernel, images) == 84 // extents[marked[0]] * trips
        feeds = {"y": np.full((3, 4, 7), -1, np.float32)}
        check(kernel, target, feeds, (), images)
        check(kernel, target, feeds, (2, iterations(kernel, images) // 2), images)


@on_runnable_targets
def test_a_parallel_loop_over_nothing_does_nothing(target: Target) -> None:
    kernel = parse_kernel(NEST.replace("1..7 step 3", "7..7"))
    assert iterations(kernel) == 0
    check(kernel, target, arrays(kernel))


NAMES = """
kernel entry(read begin: f32[4], read t0: f32[4], write number: f32[4,4]) {
  parallel for end in 0..4 {
    for done in 0..4 {
      reg none: f32x1[] = 0.0
      for iteration in 0..2 {
        more = splat x1 t0[done]
        t1 = splat x1 begin[end]
        none[] = add x1 more, t1
      }
      store x1 number[end, done], none[]
    }
  }
}
"""


@on_runnable_targets
def test_names_do_not_meet_those_of_the_emitted_code(target: Target) -> None:
    kernel = parse_kernel(NAMES)
    check(kernel, target, arrays(kernel), (2,))


SCRATCH = """
kernel turned(scratch a: f32[3,5], read x: f32[4,6,5], scratch scratch: f32[7], write y: f32[4,2,15]) {
  parallel for i in 0..4 {
    parallel for j in 0..2 {
      for row in 0..3 {
        v = load x8 x[i, 3*j + row, 0] count 5
        store x8 a[-row + 2, 0], v count 5
      }
      store x4 scratch[3], 2.0
      for r in 0..3 {
        w = load x8 a[r, 0] count 5
        two = splat x8 scratch[r + 4]
        doubled = mul x8 w, two
        store x8 y[i, j, 5*r], doubled count 5
      }
    }
  }
}
"""


@on_runnable_targets
@pytest.mark.parametrize("cuts", [(), (0, 3, 3, 8), tuple(range(1, 8))])
def test_scratch_buffers_are_no_arguments_and_do_not_overlap(target: Target, cuts: tuple[int, ...]) -> None:
    kernel = parse_kernel(SCRATCH)
    assert [b.name for b in kernel.arguments] == ["x", "y"]
    assert dict(kernel.scratch_offsets) == {"a": 0, "scratch": 64}
    assert kernel.scratch_bytes == 128
    check(kernel, target, arrays(kernel), cuts)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_linkage_and_symbol(target: Target) -> None:
    """The name follows the text; internal kernels vanish from an object's symbols."""
    kernel = parse_kernel(CLAMPED)
    symbol = kernel_symbol(kernel)
    assert symbol != kernel_symbol(parse_kernel(CLAMPED.replace("1.5", "1.25")))
    assert f"define void @{symbol}(" in emit_kernel(kernel, target)
    assert f"define internal void @{symbol}.task(" in emit_kernel(kernel, target, "internal")
    assert symbol.encode() in CodeGenerator(target).object_code(emit_kernel(kernel, target))
