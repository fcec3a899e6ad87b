"""Pooling layers: sizes rounded up, which elements count, and the mean of whole maps."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc import Network, Tensor, global_mean_pool, max_pool, mean_pool
from cnnc.ir.evaluate import evaluate
from cnnc.ir.types import Array


def image(*shape: int) -> Tensor:
    return Network("n").input(*shape)


def value(y: Tensor, x: Array) -> Array:
    """What the network computes for the picture `x`, [H,W]."""
    y.network.output(y, name="y")
    return evaluate(y.network.graph(), {"image": x[None, None]}, {}).outputs["y"][0, 0]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "floor", "ceil"),
    [
        (112, 3, 2, 0, 55, 56),
        (56, 3, 2, 0, 27, 28),
        (112, 3, 2, 1, 56, 57),
        (7, 2, 2, 0, 3, 4),
        (8, 2, 2, 0, 4, 4),
        (7, 3, 3, 1, 3, 3),
        (5, 2, 3, 1, 2, 2),  # a third window would begin behind the map
        (6, 1, 4, 0, 2, 2),
    ],
)
def test_sizes_as_pytorch_gives_them(
    size: int, kernel: int, stride: int, pad: int, floor: int, ceil: int
) -> None:
    x = image(3, size, size)
    for pool in (max_pool, mean_pool):
        assert pool(x, kernel, stride, pad).shape == (1, 3, floor, floor)
        assert pool(x, kernel, stride, pad, ceil=True).shape == (1, 3, ceil, ceil)


def test_same_padding_divides_by_the_stride() -> None:
    assert max_pool(image(1, 7, 8), 3, 2, pad="same").shape == (1, 1, 4, 4)


def test_the_last_window_takes_what_there_is() -> None:
    x = np.arange(1.0, 26.0).reshape(5, 5)
    found = value(max_pool(image(1, 5, 5), 2, ceil=True), x)
    np.testing.assert_array_equal(found, [[7, 9, 10], [17, 19, 20], [22, 24, 25]])


ONES = np.ones((5, 5))


@pytest.mark.parametrize(
    ("options", "corner", "edge", "far_corner"),
    [
        # 2x2 windows every 2, one row of padding: the corner window has one element of the map
        ({"pad": 1}, 1 / 4, 1 / 2, 1),
        ({"pad": 1, "include_pad": False}, 1, 1, 1),
        # the third window has a row beyond the map, which counts in no case
        ({"ceil": True}, 1, 1, 1),
        ({"ceil": True, "include_pad": False}, 1, 1, 1),
    ],
)
def test_what_counts_in_a_mean(
    options: dict[str, object], corner: float, edge: float, far_corner: float
) -> None:
    found = value(mean_pool(image(1, 5, 5), 2, **options), ONES)  # type: ignore[arg-type]
    assert found.shape == (3, 3)
    assert (found[0, 0], found[0, 1], found[2, 2]) == (corner, edge, far_corner)


def test_the_mean_of_whole_maps() -> None:
    x = image(2, 3, 5)
    y = global_mean_pool(x)
    assert y.shape == (1, 2)
    x.network.output(y, name="y")
    picture = np.random.default_rng(0).standard_normal((1, 2, 3, 5))
    found = evaluate(x.network.graph(), {"image": picture}, {}).outputs["y"]
    np.testing.assert_allclose(found, picture.mean(axis=(2, 3)))
