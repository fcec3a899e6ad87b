"""Rows cut into tiles: every column once, and for several phases at a time the same cuts."""

from __future__ import annotations

import pytest

from cnnc.backend.kernels.columns import column_runs, joint_runs
from cnnc.backend.kernels.phases import gradient_phases


@pytest.mark.parametrize("most", [1, 3, 28])
@pytest.mark.parametrize(("extent", "kernel", "stride", "pad"), [(14, 3, 2, 1), (9, 3, 3, 0), (33, 5, 2, 2)])
def test_runs_cover_each_column_once(extent: int, kernel: int, stride: int, pad: int, most: int) -> None:
    source = (extent + 2 * pad - kernel) // stride + 1
    for phase in gradient_phases(extent, kernel, stride, pad, 1):
        found = [
            run.first + tile * run.pixels + column
            for run in column_runs(phase, source, most)
            for tile in range(run.count)
            for column in range(run.pixels)
        ]
        assert found == list(range(phase.count))


@pytest.mark.parametrize("most", [2, 4, 28])
@pytest.mark.parametrize(("extent", "kernel", "stride", "pad"), [(14, 3, 2, 1), (12, 5, 3, 2), (56, 3, 2, 0)])
def test_joint_runs_are_those_of_each_phase(
    extent: int, kernel: int, stride: int, pad: int, most: int
) -> None:
    """Cut at more places, where another phase reaches the source differently."""
    source = (extent + 2 * pad - kernel) // stride + 1
    phases = gradient_phases(extent, kernel, stride, pad, 1)
    joint = joint_runs(phases, source, most)
    for number, phase in enumerate(phases):
        apart = [(r.pixels, r.reach) for r in column_runs(phase, source, most) for _ in range(r.count)]
        together = [(r[number].pixels, r[number].reach) for r in joint for _ in range(r[number].count)]
        assert together == apart
    assert all(len({(run.first, run.count, run.pixels) for run in runs}) == 1 for runs in joint)
