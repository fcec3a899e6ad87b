"""Register tiles: they fit the registers, cover every extent, and are the known best ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnc.backend.kernels.tiles import (
    Field,
    RegisterTile,
    block_for,
    fits,
    pixels_for,
    row_cycles,
    shape_for,
    split,
    step_cycles,
    vectors_for,
)
from cnnc.backend.target import TARGETS, Target

targets = st.sampled_from(list(TARGETS.values()))


@given(units=st.integers(1, 300), most=st.integers(1, 40), multiple=st.integers(1, 4))
def test_split_covers_the_extent_evenly(units: int, most: int, multiple: int) -> None:
    parts = split(units * multiple, most, multiple)
    assert sum(parts) == units * multiple
    assert all(part % multiple == 0 and 0 < part <= max(most, multiple) for part in parts)
    assert max(parts) - min(parts) <= multiple
    assert list(parts) == sorted(parts, reverse=True)
    assert len(parts) == -(-units // max(1, most // multiple))


@given(target=targets, pixels=st.integers(1, 300), vectors=st.integers(1, 40))
def test_chosen_tiles_fit_the_registers(target: Target, pixels: int, vectors: int) -> None:
    chosen = vectors_for(target, Field.row(pixels), vectors)
    assert 1 <= chosen <= vectors
    columns = pixels_for(target, pixels, chosen)
    assert 1 <= columns <= pixels
    assert fits(target, RegisterTile(columns, chosen))


@given(target=targets, pixels=st.integers(2, 100), vectors=st.integers(1, 4))
def test_no_other_tile_of_a_row_is_faster(target: Target, pixels: int, vectors: int) -> None:
    best = row_cycles(target, pixels, vectors)
    for columns in range(1, pixels + 1):
        if fits(target, RegisterTile(columns, vectors)):
            sizes = split(pixels, columns)
            assert best <= sum(step_cycles(target, RegisterTile(size, vectors)) for size in sizes)


@given(target=targets, pixels=st.integers(1, 60), vectors=st.integers(1, 3), multiple=st.integers(2, 4))
def test_tiles_under_a_pool_hold_whole_windows(
    target: Target, pixels: int, vectors: int, multiple: int
) -> None:
    columns = pixels_for(target, pixels * multiple, vectors, multiple, multiple)
    assert columns % multiple == 0


def test_a_window_too_large_for_the_registers_spills_and_still_is_a_tile() -> None:
    assert pixels_for(TARGETS["x86-64"], 50, 3, 5, 5) == 5


@pytest.mark.parametrize(
    ("name", "tile"),
    [("avx2", RegisterTile(6, 2)), ("avx512", RegisterTile(13, 2)), ("arm64", RegisterTile(13, 2))],
)
def test_a_long_row_gets_the_tile_measured_fastest(name: str, tile: RegisterTile) -> None:
    """6 x 2 on AVX2: twelve accumulators, two vectors of weights, a broadcast; of equal costs the largest."""
    target, pixels = TARGETS[name], 6 * 28
    vectors = vectors_for(target, Field.row(pixels), 64 // target.lanes)
    assert RegisterTile(pixels_for(target, pixels, vectors), vectors) == tile


@given(target=targets, rows=st.integers(1, 20), columns=st.integers(1, 40), vectors=st.integers(1, 4))
def test_only_pairs_of_whole_rows_are_joined(target: Target, rows: int, columns: int, vectors: int) -> None:
    shape = shape_for(target, Field(rows, columns), vectors)
    assert fits(target, RegisterTile(shape.rows * shape.columns, vectors))
    assert shape.rows <= rows and shape.columns <= columns
    assert shape.rows == 1 or (shape.rows == 2 and shape.columns == columns)
    assert shape.cycles <= rows * row_cycles(target, columns, vectors)


def test_narrow_rows_are_joined_where_that_hides_latency() -> None:
    """Seven accumulators cannot hide the latency of an FMA on two units, fourteen can."""
    shape = shape_for(TARGETS["avx2"], Field(7, 7), 1)
    assert (shape.rows, shape.columns) == (2, 7)


@given(
    target=st.sampled_from(list(TARGETS.values())),
    group=st.integers(1, 70),
    groups=st.integers(1, 9),
    pixels=st.integers(1, 60),
)
def test_blocks(target: Target, group: int, groups: int, pixels: int) -> None:
    """A block is whole vectors or, for few maps, the power of two above; it never crosses a group's end."""
    block = block_for(target, Field.row(pixels), group * groups, groups)
    assert block % target.lanes == 0 or (block < target.lanes and block & (block - 1) == 0)
    assert block < 2 * max(group, 1) or block <= target.lanes * -(-group // target.lanes)
    if groups > 1:
        assert group % block == 0
