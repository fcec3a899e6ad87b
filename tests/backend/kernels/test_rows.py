"""Bounds of filter rows: every tap inside the source once, proven in bounds, whatever the tile's height."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cnnc.backend.kernel.bounds import prove_bounds
from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.check import check_kernel
from cnnc.backend.kernel.conflicts import prove_no_conflicts
from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Access, Affine, Kernel
from cnnc.backend.kernels.phases import Phase, forward_phase, gradient_phases
from cnnc.backend.kernels.rows import SourceRows, each_filter_row, each_part
from cnnc.ir.types import Array

small = st.integers(1, 4)


def rows_kernel(phases: tuple[Phase, ...], result: int, source: int, taps: int, height: int) -> Kernel:
    """y[p] = the sum of w[place] * x[position] over the taps of each phase, `height` rows at a time."""
    k = KernelBuilder("rows")
    x, w = k.buffer("x", (source,), Access.READ), k.buffer("w", (taps,), Access.READ)
    y = k.buffer("y", (result,), Access.WRITE)
    parts = -(-phases[0].count // height)
    with k.loop("part", 0, parts, parallel=True) as part:
        for phase in phases:

            def rows(number: Affine, count: int, phase: Phase = phase) -> None:
                acc, first = k.register("acc", 1, (count,)), number * height

                def tap(r: Affine, reached: SourceRows) -> None:
                    weight = w.load((phase.filter(r),), 1)
                    for row, position in reached.items():
                        acc[row,] = k.fma(weight, x.load((position,), 1), acc[row,])

                each_filter_row(k, phase, source, first, tuple(range(count)), tap)
                for row in range(count):
                    y.store((phase.result(first + row),), acc[row,])

            each_part(k, part, parts, phase.count, height, rows)
    return k.build()


def check(phases: tuple[Phase, ...], result: int, source: int, taps: int, height: int) -> None:
    kernel = rows_kernel(phases, result, source, taps, height)
    check_kernel(kernel)
    prove_bounds(kernel)
    prove_no_conflicts(kernel)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(source), rng.standard_normal(taps)
    expected = np.zeros(result)
    for p in phases:
        for i in range(p.count):
            for tap in range(p.taps):
                if 0 <= int(p.source(i, tap)) < source:
                    expected[int(p.result(i))] += w[int(p.filter(tap))] * x[int(p.source(i, tap))]
    memory: dict[str, Array] = {
        "x": x.astype(np.float32),
        "w": w.astype(np.float32),
        "y": np.full(result, np.nan, np.float32),
    }
    interpret(kernel, memory, reversed)
    np.testing.assert_allclose(memory["y"], expected, atol=1e-5)


@given(
    source=st.integers(1, 9), kernel=small, stride=small, pads=st.tuples(*[st.integers(0, 7)] * 2),
    dilation=small, height=small,
)  # fmt: skip
def test_rows_of_a_convolution(
    source: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int, height: int
) -> None:
    slack = source + sum(pads) - dilation * (kernel - 1) - 1
    assume(slack >= 0)
    count = slack // stride + 1
    check((forward_phase(count, kernel, stride, pads[0], dilation),), count, source, kernel, height)


@given(
    extent=st.integers(1, 15), kernel=small, stride=small, pad=st.integers(0, 7), dilation=small, height=small
)
def test_rows_of_an_input_gradient(
    extent: int, kernel: int, stride: int, pad: int, dilation: int, height: int
) -> None:
    slack = extent + pad - dilation * (kernel - 1) - 1
    assume(slack >= 0)
    phases = gradient_phases(extent, kernel, stride, pad, dilation)
    check(phases, extent, slack // stride + 1, kernel, height)


@pytest.mark.parametrize(("extent", "size"), [(1, 1), (7, 2), (8, 2), (1, 3), (7, 7)])
@pytest.mark.parametrize("more", [0, 1, 3])
def test_parts_cover_the_extent_once(extent: int, size: int, more: int) -> None:
    """Numbers behind the last part do nothing."""
    k = KernelBuilder("parts")
    y = k.buffer("y", (extent,), Access.WRITE)
    parts = -(-extent // size) + more
    with k.loop("part", 0, parts, parallel=True) as part:

        def body(number: Affine, length: int) -> None:
            for i in range(length):
                y.store((number * size + i,), k.index(number * size + i, 1))

        each_part(k, part, parts, extent, size, body)
    kernel = k.build()
    check_kernel(kernel)
    prove_bounds(kernel)
    prove_no_conflicts(kernel)
    memory: dict[str, Array] = {"y": np.full(extent, np.nan, np.float32)}
    interpret(kernel, memory)
    np.testing.assert_array_equal(memory["y"], np.arange(extent))
