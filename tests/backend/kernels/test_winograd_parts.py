"""How a Winograd weight gradient is divided: enough parts, scratch memory that fits, whole vectors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernels.winograd_parts import WANTED_PARTS, Parts, Work, choose_parts
from cnnc.backend.target import TARGETS

LAYERS = ((8, 64, 14), (8, 128, 7), (8, 256, 4), (8, 512, 2), (1, 64, 64), (16, 192, 5), (4, 64, 56))
"""Images, channels and tiles along an axis of layers of known networks."""


def work_of(target: str, images: int, channels: int, tiles: int) -> Work:
    vectors = channels // TARGETS[target].lanes
    return Work(vectors, vectors, 2, 36, (images, tiles, tiles))


@pytest.mark.parametrize("target", ["avx2", "avx512"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_have_enough_parts_and_fit_the_cache(target: str, layer: tuple[int, int, int]) -> None:
    machine = TARGETS[target]
    parts = choose_parts(machine, work_of(target, *layer))
    assert parts.number >= WANTED_PARTS
    assert parts.scratch_bytes(machine.lanes) <= machine.l2_bytes
    assert parts.blocking.tiles >= 16


@given(
    channels=st.integers(1, 40),
    blocks=st.integers(1, 12),
    block=st.integers(1, 3),
    points=st.sampled_from((3, 6, 16, 36)),
    counts=st.tuples(*[st.integers(1, 20)] * 3),
    target=st.sampled_from(sorted(TARGETS)),
)
@settings(max_examples=50, deadline=None)
def test_parts_are_equal_and_whole(
    channels: int, blocks: int, block: int, points: int, counts: tuple[int, int, int], target: str
) -> None:
    work = Work(channels, blocks * block, block, points, counts)
    parts = choose_parts(TARGETS[target], work)
    assert parts.counts[0] * parts.channel_vectors == channels
    assert parts.counts[1] * parts.map_vectors == blocks * block
    assert parts.map_vectors % block == 0
    assert parts.number >= min(WANTED_PARTS, channels * blocks)


def test_larger_parts_transform_less() -> None:
    work = work_of("avx2", 8, 64, 14)
    chosen = choose_parts(TARGETS["avx2"], work)
    whole = Parts(work, work.channel_vectors, work.map_vectors, chosen.blocking)
    assert whole.cycles(TARGETS["avx2"]) < chosen.cycles(TARGETS["avx2"])
    assert whole.scratch_bytes(8) > chosen.scratch_bytes(8)
