"""Evaluation by the ops' references: values, updates, what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from cnnc.errors import CnncError, ShapeError, VerifyError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate, evaluate_values
from cnnc.ir.graph import Graph
from cnnc.ir.op import Op
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.elementwise import Add, Mul, Relu

X = np.array([-1, 2], np.float32)
W = np.array([3, 4], np.float32)


@dataclass(frozen=True)
class Wrong(Op):
    """An op whose reference does not keep to its type rule."""

    name: ClassVar[str] = "wrong"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        return (f32(3),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        return operands


def example() -> Graph:
    """y = relu(x) + w, and w becomes w * y."""
    builder = GraphBuilder("net")
    image, w = builder.input("image", f32(2)), builder.param("w", f32(2))
    y = builder.emit(Add(), builder.emit(Relu(), image, name="r"), w, name="y")
    return builder.build([y], [(w, builder.emit(Mul(), w, y, name="new"))])


def test_outputs_and_updated_params() -> None:
    result = evaluate(example(), {"image": X}, {"w": W})
    assert set(result.outputs) == {"y"} and set(result.params) == {"w"}
    np.testing.assert_array_equal(result.outputs["y"], [3, 6])
    np.testing.assert_array_equal(result.params["w"], [9, 24])
    np.testing.assert_array_equal(W, [3, 4])


def test_every_value_by_name() -> None:
    values = evaluate_values(example(), {"image": X, "w": W})
    assert list(values) == ["image", "w", "r", "y", "new"]
    np.testing.assert_array_equal(values["r"], [0, 2])


def test_float64_stays_float64() -> None:
    result = evaluate(example(), {"image": X.astype(np.float64)}, {"w": W.astype(np.float64) / 3})
    assert result.outputs["y"].dtype == np.float64
    assert result.outputs["y"][1] == 2 + np.float64(4) / 3


@pytest.mark.parametrize(
    ("inputs", "params", "kind", "message"),
    [
        ({}, {"w": W}, CnncError, r"graph 'net' needs an array 'image' of type f32\[2\]"),
        ({"image": X}, {}, CnncError, r"graph 'net' needs an array 'w' of type f32\[2\]"),
        ({"image": X, "imgae": X}, {"w": W}, CnncError, r"no input 'imgae'; did you mean 'image'\?"),
        ({"image": X}, {"w": W, "v": W}, CnncError, "no param 'v'"),
        (
            {"image": X[None]},
            {"w": W},
            ShapeError,
            r"'image' is f32\[2\], the array given has the shape \[1,2\]",
        ),
        (
            {"image": X.astype(int)},
            {"w": W},
            ShapeError,
            r"'image' is f32\[2\], the array given has the dtype int64",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    inputs: dict[str, Array], params: dict[str, Array], kind: type[CnncError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        evaluate(example(), inputs, params)


def test_a_reference_that_breaks_its_type_rule_is_found() -> None:
    builder = GraphBuilder("net")
    y = builder.emit(Wrong(), builder.input("image", f32(2)), name="y")
    with pytest.raises(VerifyError, match=r"reference of wrong gave float32\[2\] for 'y': f32\[3\]"):
        evaluate(builder.build([y]), {"image": X}, {})
