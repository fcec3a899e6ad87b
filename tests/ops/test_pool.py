"""Pooling against worked examples and plain loops; where a gradient goes on ties and overlaps."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.op import Sample
from cnnc.ir.types import Array, f32
from cnnc.ops.conv import Conv2d
from cnnc.ops.pool import MaxPool2d, MaxPool2dGrad, MeanPool2d, MeanPool2dGrad
from cnnc.ops.samples import random_operands

SAMPLES = list(MaxPool2d.samples())
every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=[str(s.op) for s in SAMPLES])


def maps(text: str) -> Array:
    """`12 34` -> the 2 x 2 digits as one map [1,1,2,2]."""
    return np.array([[[[float(d) for d in row] for row in text.split()]]])


def places(op: MaxPool2d, x: Array, i: int, j: int) -> list[tuple[int, int]]:
    """Rows and columns of x under the window of result (i, j), row-major, padding left out."""
    found = []
    for r in range(op.kernel[0]):
        for s in range(op.kernel[1]):
            row, column = i * op.stride[0] + r - op.pad[0], j * op.stride[1] + s - op.pad[1]
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                found.append((row, column))
    return found


@every_sample
def test_all_four_ops_against_plain_loops(sample: Sample) -> None:
    op = sample.op
    assert isinstance(op, MaxPool2d)
    rng = np.random.default_rng(3)
    (x,) = random_operands(sample, rng, np.float64)
    x = np.round(x[:1, :2] * 3)  # few distinct values, so that windows have ties
    highest, mean = op.reference(x)[0], MeanPool2d(op.kernel, op.stride, op.pad).reference(x)[0]
    dy = rng.standard_normal(highest.shape)
    dx_max, dx_mean = np.zeros_like(x), np.zeros_like(x)
    area = op.kernel[0] * op.kernel[1]
    for c, i, j in np.ndindex(*highest.shape[1:]):
        window = places(op, x, i, j)
        values = [x[0, c, row, column] for row, column in window]
        assert highest[0, c, i, j] == max(values)
        assert mean[0, c, i, j] == pytest.approx(sum(values) / area)
        dx_max[0, c, *window[int(np.argmax(values))]] += dy[0, c, i, j]
        for row, column in window:
            dx_mean[0, c, row, column] += dy[0, c, i, j] / area
    max_grad = MaxPool2dGrad(op.kernel, op.stride, op.pad)
    mean_grad = MeanPool2dGrad(op.kernel, op.stride, op.pad, size=x.shape[2:])
    np.testing.assert_allclose(max_grad.reference(dy, x, highest)[0], dx_max, atol=1e-12)
    np.testing.assert_allclose(mean_grad.reference(dy)[0], dx_mean, atol=1e-12)


@pytest.mark.parametrize("sample", list(MeanPool2d.samples()), ids=str)
def test_means_over_counted_elements_against_plain_loops(sample: Sample) -> None:
    """PyTorch's avg_pool2d cuts a window at the counted padding, and divides by what is left of it."""
    op = sample.op
    assert isinstance(op, MeanPool2d)
    (x,) = random_operands(sample, np.random.default_rng(3), np.float64)
    found = op.reference(x)[0]
    counted = [pad - outside for pad, outside in zip(op.pad, op.uncounted, strict=True)]
    for i, j in np.ndindex(*found.shape[2:]):
        sides = []
        for axis, number in enumerate((i, j)):
            start = number * op.stride[axis] - op.pad[axis]
            end = start + op.kernel[axis]
            size = x.shape[2 + axis]
            sides.append((min(end, size + counted[axis + 2]) - max(start, -counted[axis]), start, end))
        (height, top, bottom), (width, left, right) = sides
        window = x[:, :, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        np.testing.assert_allclose(found[:, :, i, j], window.sum(axis=(2, 3)) / (height * width))


def test_what_is_not_counted_is_padding() -> None:
    with pytest.raises(ShapeError, match=r"uncounted \(2,0,0,0\) is part of the padding, .* \(1,1,1,1\)"):
        MeanPool2d((2, 2), (2, 2), (1, 1, 1, 1), (2, 0, 0, 0)).infer(f32(1, 1, 4, 4))


def test_worked_example() -> None:
    x = maps("1124 5678 3210 1234")
    np.testing.assert_array_equal(MaxPool2d((2, 2), (2, 2)).reference(x)[0], maps("68 34"))


@pytest.mark.parametrize(
    ("conv", "pool", "length"),
    [
        (Conv2d(pad=(0, 1, 0, 1)), MaxPool2d((1, 2), (1, 2)), 3),
        (Conv2d(stride=(1, 2)), MaxPool2d((1, 3), (1, 1), (0, 1, 0, 1)), 3),
        (Conv2d(dilation=(1, 2)), MaxPool2d((1, 2), (1, 1), (0, 0, 0, 1)), 3),
        (Conv2d(dilation=(1, 2)), MaxPool2d((1, 2), (1, 1)), 2),
    ],
)
def test_lengths_of_convolution_then_pooling(conv: Conv2d, pool: MaxPool2d, length: int) -> None:
    (y,) = conv.infer(f32(1, 1, 1, 7), f32(1, 1, 1, 3))
    assert pool.infer(y) == (f32(1, 1, 1, length),)


def test_a_tie_goes_to_the_first_place_in_row_major_order() -> None:
    x, dy = maps("17 77"), maps("5")
    (dx,) = MaxPool2dGrad((2, 2), (2, 2)).reference(dy, x, maps("7"))
    np.testing.assert_array_equal(dx, maps("05 00"))


def test_overlapping_windows_add_up() -> None:
    x, dy = maps("191"), maps("34")
    (dx,) = MaxPool2dGrad((1, 2), (1, 1)).reference(dy, x, maps("99"))
    np.testing.assert_array_equal(dx, maps("070"))


def test_padding_never_wins_the_maximum_and_counts_in_the_mean() -> None:
    x = -np.ones((1, 1, 2, 2))
    pad = (1, 1, 0, 0)
    np.testing.assert_array_equal(MaxPool2d((2, 2), (2, 2), pad).reference(x)[0], [[[[-1.0]]]])
    np.testing.assert_array_equal(MeanPool2d((2, 2), (2, 2), pad).reference(x)[0], [[[[-0.25]]]])


@pytest.mark.parametrize(
    "op", [MaxPool2d((2, 2), (1, 1), (0, 2, 0, 0)), MeanPool2d((2, 2), (1, 1), (0, 2, 0, 0))]
)
def test_padding_as_wide_as_the_window_is_an_error(op: MaxPool2d | MeanPool2d) -> None:
    with pytest.raises(ShapeError, match=r"pad \(0,2,0,0\) must be smaller than the 2x2 window"):
        op.infer(f32(1, 1, 4, 4))


def test_a_window_larger_than_the_map_is_an_error() -> None:
    with pytest.raises(ShapeError, match=r"the 3x3 window does not fit the 2x5 input padded by \(0,0,0,0\)"):
        MaxPool2d((3, 3), (1, 1)).infer(f32(1, 1, 2, 5))


def test_gradients_refuse_other_sizes() -> None:
    with pytest.raises(
        ShapeError, match=r"got f32\[1,1,3,3\] as the result gradient, but pooling .* needs f32\[1,1,2,2\]"
    ):
        MaxPool2dGrad((2, 2), (2, 2)).infer(f32(1, 1, 3, 3), f32(1, 1, 4, 4), f32(1, 1, 2, 2))
    with pytest.raises(ShapeError, match=r"got f32\[1,1,3,3\] as the result gradient, but pooling"):
        MeanPool2dGrad((2, 2), (2, 2), size=(4, 4)).infer(f32(1, 1, 3, 3))
