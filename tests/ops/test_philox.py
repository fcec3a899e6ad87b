"""Philox 2x32-10: the known answers of its authors' library, and the numbers made of it."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ops.philox import philox2x32, uniform


@pytest.mark.parametrize(
    ("key", "counters", "words"),
    [
        # kat_vectors of Random123
        (0x00000000, (0x00000000, 0x00000000), (0xFF1DAE59, 0x6CD10DF2)),
        (0xFFFFFFFF, (0xFFFFFFFF, 0xFFFFFFFF), (0x2C3F628B, 0xAB4FD7AD)),
        (0x13198A2E, (0x243F6A88, 0x85A308D3), (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_known_answers(key: int, counters: tuple[int, int], words: tuple[int, int]) -> None:
    first, second = (np.array([c], np.uint32) for c in counters)
    left, right = philox2x32(key, first, second)
    assert (int(left[0]), int(right[0])) == words


def test_numbers_are_uniform() -> None:
    drawn = uniform(7, np.float32(3), np.arange(100_000))
    assert drawn.dtype == np.float32 and drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=100, range=(0, 1))
    # chi-square with 99 degrees of freedom: 99.9 % of all samples are below 149
    assert ((counts - 1000) ** 2 / 1000).sum() < 149


def test_every_argument_matters_and_places_are_independent() -> None:
    places = np.arange(1000)
    first = uniform(7, np.float32(3), places)
    np.testing.assert_array_equal(uniform(7, np.float32(3), places[500:]), first[500:])
    for other in (uniform(8, np.float32(3), places), uniform(7, np.float32(4), places)):
        assert (other == first).mean() < 0.01
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.1
