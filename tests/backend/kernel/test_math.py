"""exp, log, tanh and sigmoid in the kernel language against float64 NumPy, over dense grids."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.check import check_kernel
from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Access, Let
from cnnc.backend.kernel.math import exp, log, sigmoid, tanh
from cnnc.ir.types import Array

Function = Callable[[KernelBuilder, Vec], Vec]
NAN, INF = float("nan"), float("inf")


def apply(function: Function, values: Array) -> Array:
    """The function of float32 values, one lane each."""
    k = KernelBuilder("apply")
    x, y = k.buffer("x", values.shape, Access.READ), k.buffer("y", values.shape, Access.WRITE)
    y.store((0,), function(k, x.load((0,), values.size)))
    kernel = k.build()
    check_kernel(kernel)
    result = np.zeros_like(values)
    interpret(kernel, {"x": values, "y": result})
    return result


def numpy_sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def powers(low: float, high: float) -> Array:
    """A geometric grid of positive numbers."""
    return 10 ** np.linspace(low, high, 100_001)


@pytest.mark.parametrize(
    ("function", "reference", "grid", "bound"),
    [
        (exp, np.exp, np.linspace(-87.33, 88.7228, 400_001), 1.0e-7),
        (exp, np.exp, np.linspace(-1, 1, 200_001), 1.0e-7),
        (log, np.log, powers(-37.9, 38.5), 1.2e-7),
        (log, np.log, np.linspace(0.5, 2, 200_001), 1.2e-7),
        (tanh, np.tanh, np.linspace(-20, 20, 400_001), 3.0e-7),
        (tanh, np.tanh, powers(-37, 1), 3.0e-7),
        (tanh, np.tanh, -powers(-6, 1), 3.0e-7),
        (sigmoid, numpy_sigmoid, np.linspace(-87.3, 90, 400_001), 1.8e-7),
        (sigmoid, numpy_sigmoid, np.linspace(-4, 4, 200_001), 1.8e-7),
    ],
)
def test_relative_error(
    function: Function, reference: Callable[[Array], Array], grid: Array, bound: float
) -> None:
    values = grid.astype(np.float32)
    exact = reference(values.astype(np.float64))
    error = np.abs(apply(function, values) - exact)
    assert np.all(error <= bound * np.abs(exact))


@pytest.mark.parametrize(
    ("function", "argument", "result"),
    [
        (exp, 0.0, 1.0),
        (exp, INF, 3.4027985e38),
        (exp, -INF, 1.1755445e-38),
        (log, 1.0, 0.0),
        (log, 0.0, -INF),
        (log, -0.0, -INF),
        (log, -1.0, NAN),
        (log, INF, INF),
        (log, 1e-42, -87.33655),
        (tanh, 0.0, 0.0),
        (tanh, -0.0, -0.0),
        (sigmoid, 0.0, 0.5),
        (sigmoid, INF, 1.0),
        *((function, NAN, NAN) for function in (exp, log, tanh, sigmoid)),
    ],
)
def test_special_values(function: Function, argument: float, result: float) -> None:
    found = apply(function, np.array([argument], np.float32))
    np.testing.assert_array_equal(found, np.array([result], np.float32))
    assert np.signbit(found[0]) == np.signbit(np.float32(result)) or np.isnan(result)


def test_tanh_stays_within_one_and_is_odd() -> None:
    values = np.linspace(0, 20, 400_001).astype(np.float32)
    found = apply(tanh, values)
    assert found.max() <= 1.0
    assert found[-1] >= 1 - 3e-7
    np.testing.assert_array_equal(apply(tanh, -values), -found)


def test_tanh_takes_few_operations() -> None:
    k = KernelBuilder("count")
    tanh(k, k.buffer("x", (8,), Access.READ).load((0,), 8))
    functions = [s.instruction for s in k.build().body if isinstance(s, Let)][1:]
    assert len(functions) <= 14
