"""How a Winograd weight gradient is divided: enough parts, scratch memory that fits, whole vectors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernels.winograd_parts import OVERFLOW, Parts, Work, choose_parts
from cnnc.backend.target import COMMON_THREADS, TARGETS
from cnnc.ops.winograd import Tiling

LAYERS = ((8, 64, 14), (8, 128, 7), (8, 256, 4), (8, 512, 2), (1, 64, 64), (16, 192, 5), (4, 64, 56))
"""Images, channels and tiles along an axis of layers of known networks."""


def work_of(target: str, images: int, channels: int, tiles: int) -> Work:
    vectors = channels // TARGETS[target].lanes
    return Work(vectors, vectors, 2, tiling(4, (tiles, tiles)), images)


def tiling(tile: int, counts: tuple[int, int]) -> Tiling:
    """Whole tiles, so many along rows and columns."""
    return Tiling((tile, tile), (3, 3), (1, 1), (tile * counts[0], tile * counts[1]))


@pytest.mark.parametrize("target", ["avx2", "avx512"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_have_enough_parts_and_fit_the_cache(target: str, layer: tuple[int, int, int]) -> None:
    machine = TARGETS[target]
    parts = choose_parts(machine, work_of(target, *layer))
    assert parts.number >= COMMON_THREADS
    assert parts.scratch_bytes(machine.lanes) <= OVERFLOW * machine.l2_bytes
    assert parts.blocking.tiles >= 7  # a row of the smallest


@given(
    channels=st.integers(1, 40),
    blocks=st.integers(1, 12),
    block=st.integers(1, 3),
    tile=st.sampled_from((2, 4, 5)),
    counts=st.tuples(*[st.integers(1, 20)] * 3),
    target=st.sampled_from(sorted(TARGETS)),
)
@settings(max_examples=50, deadline=None)
def test_parts_are_equal_and_whole(
    channels: int, blocks: int, block: int, tile: int, counts: tuple[int, int, int], target: str
) -> None:
    work = Work(channels, blocks * block, block, tiling(tile, counts[1:]), counts[0])
    parts = choose_parts(TARGETS[target], work)
    assert parts.counts[0] * parts.channel_vectors == channels
    assert parts.counts[1] * parts.map_vectors == blocks * block
    assert parts.map_vectors % block == 0
    assert parts.number >= min(COMMON_THREADS, channels * blocks)


def test_larger_parts_transform_less() -> None:
    work = work_of("avx2", 8, 64, 14)
    chosen = choose_parts(TARGETS["avx2"], work)
    whole = Parts(work, work.channel_vectors, work.map_vectors, chosen.blocking)
    assert whole.cycles(TARGETS["avx2"]) < chosen.cycles(TARGETS["avx2"])
    assert whole.scratch_bytes(8) > chosen.scratch_bytes(8)


@pytest.mark.parametrize("layer", LAYERS)
def test_threads_change_the_parts_but_not_the_blocks(layer: tuple[int, int, int]) -> None:
    """So every sum is added up in the same order, whatever the code was divided for."""
    machine = TARGETS["avx512"]
    chosen = [choose_parts(machine.suited_to(n), work_of("avx512", *layer)) for n in (1, 2, 4, 8)]
    assert len({parts.blocking for parts in chosen}) == 1
    assert all(parts.number >= n for n, parts in zip((1, 2, 4, 8), chosen, strict=True))


def test_one_thread_transforms_small_layers_once() -> None:
    parts = choose_parts(TARGETS["avx512"].suited_to(1), work_of("avx512", 8, 64, 14))
    assert parts.counts == (1, 1)
