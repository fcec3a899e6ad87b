"""The fully connected layer: contraction of every axis but the first."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.types import f32
from cnnc.ops.dense import Dense, DenseInputGrad, DenseWeightGrad


def test_contracts_every_axis_but_the_first() -> None:
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal(s) for s in ((3, 4, 5, 2), (7, 4, 5, 2), (3, 7)))
    np.testing.assert_allclose(Dense().reference(x, w)[0], np.einsum("nchw,ochw->no", x, w))
    np.testing.assert_allclose(DenseInputGrad().reference(dy, w)[0], np.einsum("no,ochw->nchw", dy, w))
    np.testing.assert_allclose(DenseWeightGrad().reference(dy, x)[0], np.einsum("no,nchw->ochw", dy, x))


def test_macs() -> None:
    x, w, y = f32(1, 5), f32(5, 5), f32(1, 5)
    assert Dense().macs(x, w) == DenseInputGrad().macs(y, w) == DenseWeightGrad().macs(y, x) == 25
    assert Dense().macs(f32(64, 16, 5, 5), f32(120, 16, 5, 5)) == 64 * 120 * 400


def test_errors_name_the_values() -> None:
    with pytest.raises(ShapeError, match="the input has 16x5x5 values per image, the weight expects 401"):
        Dense().infer(f32(1, 16, 5, 5), f32(120, 401))
    with pytest.raises(ShapeError, match=r"got f32\[3\] as the weight, which must have 2 axes or more"):
        Dense().infer(f32(1, 3), f32(3))
    with pytest.raises(
        ShapeError, match=r"got f32\[1,9\] as the result gradient, which does not fit the weight f32\[8,3\]"
    ):
        DenseInputGrad().infer(f32(1, 9), f32(8, 3))
    with pytest.raises(
        ShapeError, match=r"got f32\[2,9\] as the result gradient, which does not fit the input f32\[1,3\]"
    ):
        DenseWeightGrad().infer(f32(2, 9), f32(1, 3))
