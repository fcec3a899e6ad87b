"""Winograd's algorithms against the direct method: the matrices exactly, the ops in float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.op import Op, Sample
from cnnc.ir.types import Array, f32
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.winograd import InlineWinogradConv2d, WinogradConv2d, WinogradWeightGrad, WinogradWeights
from cnnc.ops.winograd_matrices import Matrix, algorithm, transposed

KINDS = (
    *(
        (1, 1, 1),
        (1, 3, 1),
        (2, 3, 1),
        (4, 3, 1),
        (5, 3, 1),
        (2, 4, 1),
        (4, 4, 1),
        (1, 5, 1),
        (2, 5, 1),
        (3, 5, 1),
    ),
    *((2, 3, 2), (4, 3, 2), (5, 3, 2)),
)
"""Tiles, taps and strides of every algorithm along an axis."""

Kind = tuple[int, int, int]

SAMPLES = list(WinogradConv2d.samples())
every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=[str(s.op) for s in SAMPLES])
fractions = st.fractions(min_value=-9, max_value=9, max_denominator=7)


def applied(matrix: Matrix, vector: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


@given(kind=st.sampled_from(KINDS), data=st.data())
def test_the_matrices_are_exact(kind: Kind, data: st.DataObject) -> None:
    (m, r, step), found = kind, algorithm(*kind)
    assert found.points == (m - 1) * step + r
    g = data.draw(st.lists(fractions, min_size=r, max_size=r))
    d = data.draw(st.lists(fractions, min_size=found.points, max_size=found.points))
    products = [a * b for a, b in zip(applied(found.filter, g), applied(found.data, d), strict=True)]
    direct = [sum((g[j] * d[step * i + j] for j in range(r)), Fraction(0)) for i in range(m)]
    assert applied(found.result, products) == direct


@given(kind=st.sampled_from(KINDS), data=st.data())
def test_the_transposed_matrices_give_the_gradient_of_the_filter(kind: Kind, data: st.DataObject) -> None:
    (m, r, step), found = kind, algorithm(*kind)
    y = data.draw(st.lists(fractions, min_size=m, max_size=m))
    d = data.draw(st.lists(fractions, min_size=found.points, max_size=found.points))
    spread, points = applied(transposed(found.result), y), applied(found.data, d)
    products = [a * b for a, b in zip(spread, points, strict=True)]
    direct = [sum((y[i] * d[step * i + j] for i in range(m)), Fraction(0)) for j in range(r)]
    assert applied(transposed(found.filter), products) == direct


@given(kind=st.sampled_from([k for k in KINDS if k[2] == 1]), data=st.data())
def test_a_cut_tile_takes_the_first_products_of_the_same_filter(kind: Kind, data: st.DataObject) -> None:
    (m, r, _), whole = kind, algorithm(*kind)
    results = data.draw(st.integers(1, m))
    found = whole.cut(results)
    assert found.points == results + r - 1
    assert found.filter == whole.filter[: found.points]
    g = data.draw(st.lists(fractions, min_size=r, max_size=r))
    d = data.draw(st.lists(fractions, min_size=found.points, max_size=found.points))
    products = [a * b for a, b in zip(applied(found.filter, g), applied(found.data, d), strict=True)]
    direct = [sum((g[j] * d[i + j] for j in range(r)), Fraction(0)) for i in range(results)]
    assert applied(found.result, products) == direct


@pytest.mark.parametrize(("tile", "taps"), [(3, 3), (2, 1), (4, 5), (0, 3), (3, 4)])
def test_other_sizes_have_no_algorithm(tile: int, taps: int) -> None:
    with pytest.raises(ShapeError, match=f"no Winograd algorithm for tiles of {tile} under {taps} taps"):
        algorithm(tile, taps)
    with pytest.raises(ShapeError, match="tiles of 2 under 5 taps at a stride of 2"):
        algorithm(2, 5, 2)


def operands(sample: Sample, seed: int = 0) -> tuple[Array, Array]:
    """x and w in float64 for a sample of the convolution."""
    assert isinstance(sample.op, WinogradConv2d)
    x, u = sample.operands
    rng = np.random.default_rng(seed)
    w = (u.shape[2], u.shape[1], *sample.op.kernel)
    return rng.standard_normal(x.shape), rng.standard_normal(w)


def check_ops(op: WinogradConv2d, x: Array, w: Array) -> None:
    """The convolution, its weight gradient and at stride 1 its input gradient against the direct method."""
    (u,) = WinogradWeights(op.tile, stride=op.stride).reference(w)
    (y,), conv = op.reference(x, u), Conv2d(op.stride, op.pad)
    np.testing.assert_allclose(y, conv.reference(x, w)[0], rtol=0, atol=1e-9)
    geometry = op.tile, op.kernel, op.pad, op.stride
    np.testing.assert_array_equal(InlineWinogradConv2d(*geometry).reference(x, w)[0], y)
    dy = np.random.default_rng(9).standard_normal(y.shape)
    (dw,) = WinogradWeightGrad(*geometry).reference(dy, x)
    expected = Conv2dWeightGrad(op.stride, op.pad, kernel=op.kernel).reference(dy, x)[0]
    np.testing.assert_allclose(dw, expected, rtol=0, atol=1e-9)
    if op.stride == (1, 1):
        check_input_grad(op, x, w, dy)


def check_input_grad(op: WinogradConv2d, x: Array, w: Array, dy: Array) -> None:
    """As a convolution by flipped weights."""
    (kh, kw), (top, left, bottom, right) = op.kernel, op.pad
    pad = (kh - 1 - top, kw - 1 - left, kh - 1 - bottom, kw - 1 - right)
    (flipped,) = WinogradWeights(op.tile, flipped=True).reference(w)
    (dx,) = WinogradConv2d(op.tile, op.kernel, pad).reference(dy, flipped)
    inline = InlineWinogradConv2d(op.tile, op.kernel, pad, flipped=True)
    np.testing.assert_array_equal(inline.reference(dy, w)[0], dx)
    height, width = x.shape[2:]
    expected = Conv2dInputGrad(pad=op.pad, size=(height, width)).reference(dy, w)[0]
    np.testing.assert_allclose(dx, expected, rtol=0, atol=1e-9)


@every_sample
def test_samples_against_the_direct_method(sample: Sample) -> None:
    assert isinstance(sample.op, WinogradConv2d)
    check_ops(sample.op, *operands(sample))


@given(
    rows=st.sampled_from(KINDS),
    columns=st.sampled_from(KINDS),
    pad=st.tuples(*[st.integers(0, 4)] * 4),
    x=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 11), st.integers(1, 11)),
    maps=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_any_geometry_against_the_direct_method(
    rows: Kind,
    columns: Kind,
    pad: tuple[int, int, int, int],
    x: tuple[int, int, int, int],
    maps: int,
) -> None:
    kernel = (rows[1], columns[1])
    top, left, bottom, right = (min(p, taps - 1) for p, taps in zip(pad, kernel * 2, strict=True))
    pad = (top, left, bottom, right)
    x = (*x[:2], max(x[2], kernel[0] - top - bottom), max(x[3], kernel[1] - left - right))
    rng = np.random.default_rng(1)
    op = WinogradConv2d((rows[0], columns[0]), kernel, pad, (rows[2], columns[2]))
    check_ops(op, rng.standard_normal(x), rng.standard_normal((maps, x[1], *kernel)))


def test_macs_are_those_of_the_direct_method() -> None:
    x, w, dy = f32(2, 3, 9, 7), f32(5, 3, 3, 3), f32(2, 5, 9, 7)
    pad = (1, 1, 1, 1)
    (u,) = WinogradWeights((4, 4)).infer(w)
    assert u == f32(36, 3, 5)
    direct = Conv2d(pad=pad).macs(x, w)
    assert WinogradConv2d((4, 4), (3, 3), pad).macs(x, u) == direct
    assert InlineWinogradConv2d((4, 4), (3, 3), pad).macs(x, w) == direct
    assert WinogradWeightGrad((4, 4), (3, 3), pad).macs(dy, x) == direct


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (WinogradWeights((2, 2)), [(5, 3, 3)], r"which must have 4 axes \[O,I,Kh,Kw\]"),
        (WinogradWeights((2, 2)), [(5, 3, 3, 1)], "no Winograd algorithm for tiles of 2 under 1 taps"),
        (
            WinogradConv2d((2, 2), (3, 3)),
            [(1, 3, 8, 8), (36, 3, 5)],
            r"got f32\[36,3,5\] .* tiles of 2x2 needs f32\[16,3,5\]",
        ),
        (
            InlineWinogradConv2d((2, 2), (3, 3)),
            [(1, 3, 8, 8), (5, 3, 3, 1)],
            r"got f32\[5,3,3,1\] as the weight, .* needs f32\[5,3,3,3\]",
        ),
        (
            InlineWinogradConv2d((2, 2), (3, 3), flipped=True),
            [(1, 3, 8, 8), (5, 3, 3, 3)],
            r"got f32\[16,5,3\] as the transformed weight, .* needs f32\[16,3,3\]",
        ),
        (WinogradConv2d((2, 2), (3, 3)), [(1, 3, 2, 8), (16, 3, 5)], "the 3x3 window does not fit"),
        (WinogradConv2d((2, 3), (3, 3)), [(1, 3, 8, 8), (20, 3, 5)], "no Winograd algorithm for tiles of 3"),
        (
            WinogradWeightGrad((2, 2), (3, 3)),
            [(1, 5, 8, 8), (1, 3, 8, 8)],
            r"got f32\[1,5,8,8\] as the result gradient, .* needs f32\[1,5,6,6\]",
        ),
    ],
)
def test_errors(op: Op, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*(f32(*shape) for shape in shapes))


def test_no_derivative() -> None:
    with pytest.raises(UnsupportedError, match="winograd_conv2d has no derivative"):
        WinogradConv2d((2, 2), (3, 3)).grad(None, (), (), ())  # type: ignore[arg-type]
