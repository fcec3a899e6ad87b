"""A fused region computes what its body computes."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph
from cnnc.ir.types import f32
from cnnc.ops.conv import Conv2d
from cnnc.ops.dense import Dense
from cnnc.ops.elementwise import Bias, Relu
from cnnc.ops.fused import Fused
from cnnc.ops.pool import MaxPool2d


def body() -> Graph:
    builder = GraphBuilder("body")
    x, w, b = (
        builder.input("x", f32(1, 2, 6, 6)),
        builder.input("w", f32(3, 2, 3, 3)),
        builder.input("b", f32(3)),
    )
    y = builder.emit(Relu(), builder.emit(Bias(), builder.emit(Conv2d(), x, w), b))
    return builder.build([builder.emit(MaxPool2d((2, 2), (2, 2)), y), y])


def test_reference_is_that_of_the_body() -> None:
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(v.type.shape) for v in body().inputs)
    pooled, y = Fused(body()).reference(x, w, b)
    expected = np.maximum(Conv2d().reference(x, w)[0] + b[None, :, None, None], 0)
    np.testing.assert_allclose(y, expected)
    np.testing.assert_array_equal(pooled, MaxPool2d((2, 2), (2, 2)).reference(y)[0])


def test_anchor_and_epilogue() -> None:
    fused = Fused(body())
    assert fused.anchor.op == Conv2d()
    assert [node.op.name for node in fused.epilogue] == ["bias", "relu", "max_pool2d"]


def test_macs_are_those_of_the_anchor() -> None:
    assert Fused(body()).macs(*(v.type for v in body().inputs)) == 16 * 3 * 2 * 9


def test_operands_must_be_those_of_the_body() -> None:
    with pytest.raises(
        ShapeError, match=r"the operands are \(f32\[1\]\), the body expects \(f32\[1,2,6,6\], "
    ):
        Fused(body()).infer(f32(1))


def test_a_body_with_params_is_refused() -> None:
    builder = GraphBuilder("body")
    x, w = builder.input("x", f32(1, 2)), builder.param("w", f32(3, 2))
    with pytest.raises(ShapeError, match="'body' must have nodes, and neither params nor updates"):
        Fused(builder.build([builder.emit(Dense(), x, w)])).infer(f32(1, 2))
