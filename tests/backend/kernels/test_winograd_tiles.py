"""Runs of tiles and blocks of tiles: they cover every tile once, and say rightly what lies in the map."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Access, affine
from cnnc.backend.kernels.winograd_tiles import Axis, Blocking, Run, blockings, loop_over, runs
from cnnc.ir.types import Array

counts = st.tuples(*[st.integers(1, 9)] * 3)


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


@given(counts=counts, most=st.integers(1, 64))
def test_blocks_cover_all_tiles_and_are_not_too_large(counts: tuple[int, int, int], most: int) -> None:
    found = list(blockings(counts, most))
    assert found
    for blocking in found:
        assert blocking.tiles <= most
        for blocks, size, count in zip(blocking.blocks, blocking.sizes, counts, strict=True):
            assert (blocks - 1) * size < count <= blocks * size
        assert blocking.total >= counts[0] * counts[1] * counts[2]


@given(counts=counts, most=st.integers(1, 64), data=st.data())
def test_positions_number_the_tiles_of_a_block(
    counts: tuple[int, int, int], most: int, data: st.DataObject
) -> None:
    blocking = data.draw(st.sampled_from(list(blockings(counts, most))))
    n, y, x = (data.draw(st.integers(0, blocks - 1)) for blocks in blocking.blocks)
    images, rows, columns = blocking.sizes
    positions = [
        blocking.position(
            (affine(n * images + i), affine(y * rows + j), affine(x * columns + k)),
            (affine(n), affine(y), affine(x)),
        ).constant
        for i, j, k in product(range(images), range(rows), range(columns))
    ]
    assert positions == list(range(blocking.tiles))


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


def test_blocks_of_whole_rows_or_images_only() -> None:
    sizes = {blocking.sizes for blocking in blockings((2, 2, 3), 6)}
    assert sizes == {(1, 1, 1), (1, 1, 2), (1, 1, 3), (1, 2, 3)}
    assert Blocking((2, 2, 3), (2, 2, 3)) in set(blockings((2, 2, 3), 12))
