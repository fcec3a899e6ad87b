"""The division of a Winograd convolution: what there is to choose from, and what is chosen."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnc.backend.kernels.winograd_blocks import MOST_TILES, Work, choose_blocks, divisions
from cnnc.backend.target import TARGETS
from cnnc.ops.winograd import Tiling

AVX2 = TARGETS["avx2"]
counts = st.tuples(st.integers(1, 9), st.integers(1, 60), st.integers(1, 60))


def work_of(counts: tuple[int, int, int], *rest: int) -> Work:
    """A convolution by so many tiles of 4x4, all whole, along images, rows and columns."""
    return Work(Tiling((4, 4), (3, 3), (1, 1), (4 * counts[1], 4 * counts[2])), counts[0], *rest)


@given(counts=counts, channels=st.integers(1, 600), blocks=st.integers(1, 24), width=st.integers(1, 4))
def test_divisions_cover_all_tiles_and_maps(
    counts: tuple[int, int, int], channels: int, blocks: int, width: int
) -> None:
    for division in divisions(work_of(counts, channels, 8, blocks, width, 8)):
        blocking = division.blocking
        assert all(n * s >= c for n, s, c in zip(blocking.blocks, blocking.sizes, counts, strict=True))
        assert division.parts * division.panels * division.panel == blocks
        assert 1 <= blocking.tiles <= MOST_TILES
        assert division.iterations == division.parts * math.prod(blocking.blocks)


def test_wide_maps_are_cut_into_blocks_that_the_cache_holds() -> None:
    chosen = choose_blocks(AVX2, work_of((1, 56, 56), 64, 8, 4, 2, 8), 1)
    assert chosen.data_bytes + chosen.product_bytes <= AVX2.l2_bytes
    assert chosen.parts == 1, "data are transformed once"


@pytest.mark.parametrize("images", [1, 8])
def test_small_maps_of_many_channels_are_shared_out_by_maps(images: int) -> None:
    """Weights outweigh everything: each of them is read once."""
    chosen = choose_blocks(AVX2, work_of((images, 2, 2), 512, 8, 32, 2, 8), images)
    assert math.prod(chosen.blocking.blocks) == 1
    assert chosen.parts % 4 == 0


def test_a_single_tile_and_map_has_one_division() -> None:
    (only,) = divisions(work_of((1, 1, 1), 3, 4, 1, 1, 1))
    assert (only.iterations, only.panels, only.panel) == (1, 1, 1)
    assert (only.data_bytes, only.product_bytes, only.weight_bytes) == (4 * 36 * 3, 4 * 36, 4 * 36 * 3)
