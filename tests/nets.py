"""Loss graphs of whole small networks, for the tests of passes that need a network to be of use."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Value
from cnnc.ir.location import Location
from cnnc.ir.op import Op
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.conv import Conv2d
from cnnc.ops.dense import Dense
from cnnc.ops.elementwise import Add, Bias, Map, Relu, Sigmoid, Tanh
from cnnc.ops.loss import CorrectCount, SoftmaxCrossEntropy, SquaredError
from cnnc.ops.pool import MaxPool2d, MeanPool2d
from cnnc.ops.shape import Flatten
from cnnc.ops.softmax import Softmax


def lenet5(batch: int = 1) -> Graph:
    """LeNet-5 on 32x32 images with 10 classes; outputs loss and correct."""
    return _classifier("lenet5", batch, 32, (6, 16), 5, (120, 84, 10))


def tiny_lenet(batch: int = 2) -> Graph:
    """The same on 12x12 images with 3 classes and few channels."""
    return _classifier("tiny_lenet", batch, 12, (2, 3), 3, (4, 3))


def residual(batch: int = 2) -> Graph:
    """A block with a shortcut, one weight used twice, softmax outputs and a squared error."""
    b = GraphBuilder("residual")
    x, target = b.input("image", f32(batch, 2, 6, 6)), b.input("target", f32(batch, 3))
    stem = layer(b, "stem", Conv2d(pad=(1, 1, 1, 1)), x, f32(3, 2, 3, 3), Relu())
    shared = b.param("shared.weight", f32(3, 3, 3, 3))
    with b.at("block", Location("residual.py", 7)):
        inner = b.emit(Sigmoid(), b.emit(Conv2d(pad=(1, 1, 1, 1)), stem, shared))
        outer = b.emit(Conv2d(pad=(1, 1, 1, 1)), inner, shared)
        joined = b.emit(Map("a * sigmoid(a)"), b.emit(Add(), outer, stem))
        pooled = b.emit(MeanPool2d((3, 3), (3, 3)), joined)
    logits = layer(b, "out", Dense(), b.emit(Flatten(), pooled), f32(3, 12), None)
    return b.build([b.emit(SquaredError(), b.emit(Softmax(), logits), target)])


def layer(b: GraphBuilder, name: str, op: Op, x: Value, weight: TensorType, activation: Op | None) -> Value:
    """A contraction with its weight, bias and activation."""
    with b.at(name, Location(f"{b.name}.py", len(name))):
        w, c = b.param(f"{name}.weight", weight), b.param(f"{name}.bias", f32(weight.shape[0]))
        y = b.emit(Bias(), b.emit(op, x, w), c)
        return b.emit(activation, y) if activation else y


def _classifier(
    name: str, batch: int, size: int, channels: tuple[int, int], kernel: int, widths: tuple[int, ...]
) -> Graph:
    b = GraphBuilder(name)
    h = b.input("image", f32(batch, 1, size, size))
    labels = b.input("labels", TensorType("i32", (batch,)))
    for number, (width, pool) in enumerate(zip(channels, (MeanPool2d, MaxPool2d), strict=True), start=1):
        weight = f32(width, h.type.shape[1], kernel, kernel)
        h = layer(b, f"c{number}", Conv2d(), h, weight, Tanh())
        with b.at(f"s{number}", Location(f"{name}.py", number)):
            h = b.emit(pool((2, 2), (2, 2)), h)
    h = b.emit(Flatten(), h)
    for number, width in enumerate(widths, start=1):
        last = number == len(widths)
        h = layer(b, f"f{number}", Dense(), h, f32(width, h.type.shape[1]), None if last else Tanh())
    return b.build([b.emit(SoftmaxCrossEntropy(), h, labels), b.emit(CorrectCount(), h, labels)])


def draw(values: tuple[Value, ...], seed: int, dtype: type[np.floating] = np.float32) -> Mapping[str, Array]:
    """Random arrays by name: normal for floats, 0..2 for integers, which are labels."""
    rng = np.random.default_rng(seed)
    return {
        v.name: rng.integers(0, 3, v.type.shape, dtype=np.int32)
        if v.type.dtype == "i32"
        else np.asarray(rng.standard_normal(v.type.shape) * 0.5, dtype)
        for v in values
    }
