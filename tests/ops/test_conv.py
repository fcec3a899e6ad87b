"""Convolution against worked examples and against seven plain loops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.op import Sample
from cnnc.ir.types import Array, f32
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.samples import random_operands

SAMPLES = list(Conv2d.samples())


def maps(text: str) -> Array:
    """`110 011` -> the 2 x 3 digits as one map [1,1,2,3]."""
    return np.array([[[[float(d) for d in row] for row in text.split()]]])


def products(op: Conv2d, x: Array, w: Array) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Index triples (into y, into x, into w) of all products of the convolution, by definition."""
    (n_y, o_y, h_y, w_y), (_, i_w, k_h, k_w) = result_shape(op, x, w), w.shape
    per_group = o_y // op.groups
    for n, o, i, j, c, r, s in itertools.product(*map(range, (n_y, o_y, h_y, w_y, i_w, k_h, k_w))):
        row = i * op.stride[0] + r * op.dilation[0] - op.pad[0]
        column = j * op.stride[1] + s * op.dilation[1] - op.pad[1]
        if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
            channel = (o // per_group) * i_w + c
            yield (n, o, i, j), (n, channel, row, column), (o, c, r, s)


def result_shape(op: Conv2d, x: Array, w: Array) -> tuple[int, ...]:
    return op.infer(f32(*x.shape), f32(*w.shape))[0].shape


@pytest.mark.parametrize("sample", SAMPLES, ids=[str(s.op) for s in SAMPLES])
def test_the_three_ops_against_plain_loops(sample: Sample) -> None:
    op, (x_type, w_type) = sample.op, sample.operands
    assert isinstance(op, Conv2d)
    rng = np.random.default_rng(1)
    # One image and few channels keep the loops short; the geometry is the sample's.
    x = rng.standard_normal((1, min(x_type.shape[1], 2 * op.groups), *x_type.shape[2:]))
    w = rng.standard_normal((min(w_type.shape[0], 2 * op.groups), x.shape[1] // op.groups, *w_type.shape[2:]))
    dy = rng.standard_normal(result_shape(op, x, w))
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w)
    for at_y, at_x, at_w in products(op, x, w):
        y[at_y] += x[at_x] * w[at_w]
        dx[at_x] += dy[at_y] * w[at_w]
        dw[at_w] += dy[at_y] * x[at_x]
    common = (op.stride, op.pad, op.dilation, op.groups)
    np.testing.assert_allclose(op.reference(x, w)[0], y, atol=1e-12)
    np.testing.assert_allclose(Conv2dInputGrad(*common, size=x.shape[2:]).reference(dy, w)[0], dx, atol=1e-12)
    np.testing.assert_allclose(
        Conv2dWeightGrad(*common, kernel=w.shape[2:]).reference(dy, x)[0], dw, atol=1e-12
    )


def test_worked_example() -> None:
    image, cross = maps("11100 01110 00111 00110 01100"), maps("101 010 101")
    np.testing.assert_array_equal(Conv2d().reference(image, cross)[0], maps("434 243 234"))


def test_worked_example_in_one_dimension() -> None:
    np.testing.assert_array_equal(Conv2d().reference(maps("11100"), maps("101"))[0], maps("211"))


@pytest.mark.parametrize(
    ("n", "kernel", "stride", "pad", "dilation", "length"),
    [(5, 3, 2, 1, 1, 3), (7, 3, 1, 1, 1, 7), (7, 3, 2, 0, 1, 3), (7, 3, 1, 0, 2, 3), (19, 7, 1, 0, 3, 1)],
)
def test_lengths(n: int, kernel: int, stride: int, pad: int, dilation: int, length: int) -> None:
    op = Conv2d(stride=(1, stride), pad=(0, pad, 0, pad), dilation=(1, dilation))
    assert op.infer(f32(1, 1, 1, n), f32(1, 1, 1, kernel)) == (f32(1, 1, 1, length),)


def test_a_filter_of_7_dilated_by_3_spans_19() -> None:
    with pytest.raises(ShapeError, match="does not fit"):
        Conv2d(dilation=(1, 3)).infer(f32(1, 1, 1, 18), f32(1, 1, 1, 7))


def test_macs_of_the_first_layer_of_lenet5() -> None:
    x, w, y = f32(1, 3, 32, 32), f32(6, 3, 5, 5), f32(1, 6, 28, 28)
    assert Conv2d().infer(x, w) == (y,)
    assert Conv2d().macs(x, w) == 352_800
    assert Conv2dInputGrad(size=(32, 32)).macs(y, w) == 352_800
    assert Conv2dWeightGrad(kernel=(5, 5)).macs(y, x) == 352_800
    assert w.size + 6 == 456


def test_macs_of_groups() -> None:
    assert Conv2d(groups=4).macs(f32(1, 8, 3, 3), f32(8, 2, 3, 3)) == 8 * 2 * 9


@pytest.mark.parametrize("sample", SAMPLES, ids=[str(s.op) for s in SAMPLES])
def test_gradients_are_adjoint(sample: Sample) -> None:
    """<conv(x, w), dy> = <x, input_grad(dy, w)> = <w, weight_grad(dy, x)> on the samples' full sizes."""
    op = sample.op
    assert isinstance(op, Conv2d)
    rng = np.random.default_rng(2)
    x, w = random_operands(sample, rng, np.float64)
    (y,) = op.reference(x, w)
    dy, common = rng.standard_normal(y.shape), (op.stride, op.pad, op.dilation, op.groups)
    (dx,) = Conv2dInputGrad(*common, size=x.shape[2:]).reference(dy, w)
    (dw,) = Conv2dWeightGrad(*common, kernel=w.shape[2:]).reference(dy, x)
    assert (x * dx).sum() == pytest.approx((y * dy).sum(), rel=1e-10)
    assert (w * dw).sum() == pytest.approx((y * dy).sum(), rel=1e-10)


@pytest.mark.parametrize(
    ("op", "x", "w", "message"),
    [
        (Conv2d(), (1, 3, 8, 8), (6, 4, 3, 3), "input has 3 channels, the weight expects 4"),
        (
            Conv2d(groups=2),
            (1, 8, 8, 8),
            (6, 3, 3, 3),
            "input has 8 channels, the weight expects 2 groups of 3",
        ),
        (
            Conv2d(groups=3),
            (1, 8, 8, 8),
            (6, 3, 3, 3),
            "3 groups do not divide 8 input and 6 output channels",
        ),
        (Conv2d(groups=0), (1, 8, 8, 8), (6, 3, 3, 3), "0 groups do not divide"),
        (
            Conv2d(),
            (1, 3, 4, 4),
            (6, 3, 5, 5),
            r"the 5x5 window does not fit the 4x4 input padded by \(0,0,0,0\)",
        ),
        (
            Conv2d(stride=(0, 1)),
            (1, 3, 4, 4),
            (6, 3, 1, 1),
            r"stride must be 2 integers of at least 1, got \(0,1\)",
        ),
        (Conv2d(pad=(0, -1, 0, 0)), (1, 3, 4, 4), (6, 3, 1, 1), "pad must be 4 integers of at least 0"),
        (
            Conv2d(),
            (3, 4, 4),
            (6, 3, 1, 1),
            r"got f32\[3,4,4\] as the input, which must have 4 axes \[N,C,H,W\]",
        ),
        (
            Conv2d(),
            (1, 3, 4, 4),
            (6, 3),
            r"got f32\[6,3\] as the weight, which must have 4 axes \[O,I,Kh,Kw\]",
        ),
    ],
)
def test_errors(op: Conv2d, x: tuple[int, ...], w: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(f32(*x), f32(*w))


def test_gradients_refuse_a_result_gradient_of_another_size() -> None:
    with pytest.raises(
        ShapeError, match=r"got f32\[1,6,5,5\] as the result gradient, but the input .* needs f32\[1,6,4,4\]"
    ):
        Conv2dInputGrad(size=(6, 6)).infer(f32(1, 6, 5, 5), f32(6, 3, 3, 3))
    with pytest.raises(
        ShapeError, match=r"got f32\[2,6,4,4\] as the result gradient, but the input .* needs f32\[1,6,4,4\]"
    ):
        Conv2dWeightGrad(kernel=(3, 3)).infer(f32(2, 6, 4, 4), f32(1, 3, 6, 6))
