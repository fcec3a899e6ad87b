"""The order of training images: splitmix64's published numbers, and permutations."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.shuffle import GAMMA, MASK, Shuffle


def splitmix64(seed: int, count: int) -> list[int]:
    numbers = []
    for k in range(1, count + 1):
        z = (seed + k * GAMMA) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        numbers.append(z ^ (z >> 31))
    return numbers


def test_oracle_gives_the_published_numbers() -> None:
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 7, MASK])
def test_orders_follow_fisher_yates_over_epochs(seed: int) -> None:
    count, epochs = 11, 3
    numbers = iter(splitmix64(seed, epochs * (count - 1)))
    shuffle, expected = Shuffle(seed, count), list(range(count))
    for _ in range(epochs):
        for i in range(count - 1, 0, -1):
            j = next(numbers) % (i + 1)
            expected[i], expected[j] = expected[j], expected[i]
        order = shuffle.next_order()
        assert order.dtype == np.int64
        assert order.tolist() == expected


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_shuffle(count: int) -> None:
    assert Shuffle(3, count).next_order().tolist() == list(range(count))
