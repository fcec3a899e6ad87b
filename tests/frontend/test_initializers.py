"""Initializers: the variances of the papers, bounds, determinism."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.frontend.initializers import (
    Initializer,
    constant,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    initial_value,
    zeros,
)

CONV = (64, 32, 5, 5)
DENSE = (200, 300)


@pytest.mark.parametrize(
    ("init", "shape", "variance"),
    [
        (he_normal, CONV, 2 / (32 * 25)),
        (he_uniform, CONV, 2 / (32 * 25)),
        (glorot_normal, CONV, 2 / ((32 + 64) * 25)),
        (glorot_uniform, CONV, 2 / ((32 + 64) * 25)),
        (he_normal, DENSE, 2 / 300),
        (glorot_uniform, DENSE, 2 / 500),
    ],
)
def test_variance(init: Initializer, shape: tuple[int, ...], variance: float) -> None:
    value = initial_value("w", shape, init, seed=0)
    assert value.dtype == np.float32
    assert abs(value.mean()) < 0.05 * np.sqrt(variance)
    assert value.var() == pytest.approx(variance, rel=0.05)


def test_uniform_is_bounded() -> None:
    assert np.abs(initial_value("w", DENSE, he_uniform, seed=1)).max() <= np.sqrt(6 / 300)


def test_constants() -> None:
    assert not initial_value("b", (3,), zeros, seed=0).any()
    assert (initial_value("b", (3,), constant(0.25), seed=0) == 0.25).all()


def test_seed_and_name_decide() -> None:
    first = initial_value("c1.weight", CONV, he_normal, seed=3)
    np.testing.assert_array_equal(first, initial_value("c1.weight", CONV, he_normal, seed=3))
    assert not np.array_equal(first, initial_value("c2.weight", CONV, he_normal, seed=3))
    assert not np.array_equal(first, initial_value("c1.weight", CONV, he_normal, seed=4))
