"""Runs of tiles cover every tile once, and say rightly what lies in the map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Access
from cnnc.backend.kernels.runs import Axis, Run, loop_over, runs
from cnnc.ir.types import Array


def test_runs_of_padded_tiles() -> None:
    axis = Axis(tiles=4, step=4, origin=1, extent=6, size=14)
    assert runs(axis, 5) == (
        Run(0, 1, (1, 2, 3, 4, 5)),
        Run(1, 2, (0, 1, 2, 3, 4, 5)),
        Run(3, 1, (0, 1, 2)),
        Run(4, 1, ()),
    )


@given(
    tiles=st.integers(1, 9),
    beyond=st.integers(0, 3),
    step=st.integers(1, 4),
    origin=st.integers(0, 2),
    extent=st.integers(1, 6),
    size=st.integers(1, 30),
)
def test_runs_say_what_each_tile_reaches(
    tiles: int, beyond: int, step: int, origin: int, extent: int, size: int
) -> None:
    axis = Axis(tiles, step, origin, extent, size)
    found = [
        (tile, run.inside)
        for run in runs(axis, tiles + beyond)
        for tile in range(run.first, run.first + run.count)
    ]
    assert [tile for tile, _ in found] == list(range(tiles + beyond))
    for tile, inside in found:
        places = [tile * step - origin + i for i in range(extent)]
        assert inside == tuple(i for i, p in enumerate(places) if 0 <= p < size and tile < tiles)


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_loops_visit_the_tiles_of_a_run_in_their_block(size: int) -> None:
    run, tiles = Run(2, 5, ()), 10
    k, blocks = KernelBuilder("visit"), -(-tiles // size)
    y = k.buffer("y", (blocks, tiles), Access.WRITE)
    with k.loop("b", 0, blocks) as b, loop_over(k, "t", run, b, size) as t:
        y.store((b, t), k.constant(1.0, 1))
    memory: dict[str, Array] = {"y": np.zeros((blocks, tiles), np.float32)}
    interpret(k.build(), memory)
    expected = [[b * size <= t < b * size + size and 2 <= t < 7 for t in range(tiles)] for b in range(blocks)]
    np.testing.assert_array_equal(memory["y"], np.array(expected, np.float32))
