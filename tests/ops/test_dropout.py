"""Dropout: nothing by itself; its masks have the rate, and differ between steps and layers."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.types import Array, f32
from cnnc.ops.dropout import Dropout, DropoutMask


def mask(step: float, rate: float = 0.4, seed: int = 5, shape: tuple[int, ...] = (64, 500)) -> Array:
    return DropoutMask(rate, seed, shape).reference(np.array(step, np.float32))[0]


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.5, 0.9])
def test_masks_are_zero_at_the_rate_and_have_mean_one(rate: float) -> None:
    found = mask(12, rate)
    kept = np.float32(1 / (1 - rate))
    assert set(np.unique(found)) == {np.float32(0), kept}
    deviation = np.sqrt(rate * (1 - rate) / found.size)
    assert abs((found == 0).mean() - rate) < 4 * deviation
    assert abs(found.mean() - 1) < 4 * deviation * kept


def test_a_rate_of_zero_keeps_everything() -> None:
    np.testing.assert_array_equal(mask(1, rate=0.0), np.ones((64, 500), np.float32))


def test_steps_and_seeds_have_masks_of_their_own() -> None:
    first, agreeing = mask(3), 0.4**2 + 0.6**2
    np.testing.assert_array_equal(first, mask(3))
    for other in (mask(4), mask(3, seed=6)):
        assert abs((first == other).mean() - agreeing) < 0.02
    assert (first[0] == first[1]).mean() < 0.65


def test_maps_are_counted_pixel_by_pixel() -> None:
    flat = mask(9, shape=(2 * 5 * 7 * 3,))
    found = mask(9, shape=(2, 3, 5, 7))
    np.testing.assert_array_equal(found.transpose(0, 2, 3, 1).ravel(), flat)
    np.testing.assert_array_equal(mask(9, shape=(1, 3, 5, 7)), found[:1])


def test_dropout_itself_changes_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3))
    np.testing.assert_array_equal(Dropout(0.5, 1).reference(x)[0], x)


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"rate must be at least 0 and below 1, got 1\.0"):
        Dropout(1.0, 0).infer(f32(1, 2))
    with pytest.raises(ShapeError, match="seed must be a number of 32 bits, got -1"):
        DropoutMask(0.5, -1, (2,)).infer(f32())
