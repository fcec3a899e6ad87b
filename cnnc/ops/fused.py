"""A region of ops that one kernel computes: an anchor with what is applied before and behind it.

passes/fuse_epilogues and passes/fuse_prologues build these; the backend writes one kernel for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.body import anchor_position
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate_values
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Emitter, Op, Sample
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.batch_sums import BatchNormSums
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.dense import Dense
from cnnc.ops.elementwise import Add, Bias, Map, Relu, Tanh
from cnnc.ops.partial import PartialWeightGrad
from cnnc.ops.pool import MaxPool2d
from cnnc.ops.winograd import InlineWinogradConv2d, WinogradWeightGrad


@dataclass(frozen=True)
class Fused(Op):
    """The body's inputs -> the body's outputs. Body names are its own; a body has no params.

    The nodes are a prologue, the anchor and its epilogue (cnnc/ir/body.py).
    """

    name: ClassVar[str] = "fused"
    body: Graph

    @property
    def anchor(self) -> Node:
        return self.body.nodes[anchor_position(self.body)]

    @property
    def prologue(self) -> tuple[Node, ...]:
        return self.body.nodes[: anchor_position(self.body)]

    @property
    def epilogue(self) -> tuple[Node, ...]:
        return self.body.nodes[anchor_position(self.body) + 1 :]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        if self.body.params or self.body.updates or not self.body.nodes:
            raise ShapeError(f"the body {self.body.name!r} must have nodes, and neither params nor updates")
        expected = tuple(value.type for value in self.body.inputs)
        if operands != expected:
            given, wanted = (", ".join(map(str, types)) for types in (operands, expected))
            raise ShapeError(f"the operands are ({given}), the body expects ({wanted})")
        return tuple(value.type for value in self.body.outputs)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        feeds = {value.name: array for value, array in zip(self.body.inputs, operands, strict=True)}
        values = evaluate_values(self.body, feeds)
        return tuple(values[value.name] for value in self.body.outputs)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError("fused has no derivative: differentiate before fusing")

    def macs(self, *operands: TensorType) -> int:
        return sum(node.macs for node in self.body.nodes)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        contractions = (
            (Conv2d(), f32(2, 17, 9, 7), f32(33, 17, 1, 1)),
            (Conv2dWeightGrad(), f32(2, 9, 9, 7), f32(2, 17, 9, 7)),
            (PartialWeightGrad(parts=2), f32(2, 9, 9, 7), f32(2, 17, 9, 7)),
            (InlineWinogradConv2d((2, 2), (3, 3), (1, 1, 1, 1)), f32(1, 17, 7, 9), f32(9, 17, 3, 3)),
            (WinogradWeightGrad((2, 2), (3, 3), (1, 1, 1, 1)), f32(1, 9, 7, 9), f32(1, 17, 7, 9)),
        )
        bodies = _conv_relu_pool(), _conv_add(), _dense_tanh(), _masked_input_grad(), _summed_input_grad()
        for body in (*bodies, *(_made(*each) for each in contractions)):
            yield Sample(cls(body), tuple(value.type for value in body.inputs))


def _conv_relu_pool() -> Graph:
    body = GraphBuilder("conv_bias_relu_pool")
    x, w, b = body.input("x", f32(2, 3, 8, 10)), body.input("w", f32(7, 3, 3, 3)), body.input("b", f32(7))
    y = body.emit(Relu(), body.emit(Bias(), body.emit(Conv2d(pad=(1, 1, 1, 1)), x, w), b))
    return body.build([y, body.emit(MaxPool2d((2, 2), (2, 2)), y)])


def _conv_add() -> Graph:
    body = GraphBuilder("conv_bias_add_relu")
    x, w, b = body.input("x", f32(1, 17, 5, 7)), body.input("w", f32(9, 17, 1, 1)), body.input("b", f32(9))
    skip = body.input("skip", f32(1, 9, 5, 7))
    y = body.emit(Bias(), body.emit(Conv2d(), x, w), b)
    return body.build([body.emit(Relu(), body.emit(Add(), y, skip))])


def _dense_tanh() -> Graph:
    body = GraphBuilder("dense_bias_tanh")
    x, w, b = body.input("x", f32(3, 33)), body.input("w", f32(17, 33)), body.input("b", f32(17))
    return body.build([body.emit(Tanh(), body.emit(Bias(), body.emit(Dense(), x, w), b))])


def _masked_input_grad() -> Graph:
    body = GraphBuilder("conv_input_grad_mask")
    dy, w, y = (
        body.input("dy", f32(2, 5, 7, 7)),
        body.input("w", f32(5, 3, 3, 3)),
        body.input("y", f32(2, 3, 9, 9)),
    )
    dx = body.emit(Conv2dInputGrad(size=(9, 9)), dy, w)
    return body.build([body.emit(Map("select(0.0 < b, a, 0.0)"), dx, y)])


def _made(op: Op, first: TensorType, second: TensorType) -> Graph:
    """A contraction of normalized activations, which are the second operand of a gradient."""
    body = GraphBuilder(f"made_{op.name}")
    given = body.input("a", first), body.input("b", second)
    position = 1 if isinstance(op, Conv2dWeightGrad | WinogradWeightGrad) else 0
    channels = f32(given[position].type.shape[1])
    scale, shift = body.input("scale", channels), body.input("shift", channels)
    normalized = body.emit(Map("a * b + c"), given[position], scale, shift)
    operands = list(given)
    operands[position] = body.emit(Relu(), normalized)
    return body.build([body.emit(op, *operands)])


def _summed_input_grad() -> Graph:
    """Two bands of each image."""
    body = GraphBuilder("conv_input_grad_sums")
    dy, w = body.input("dy", f32(3, 5, 6, 7)), body.input("w", f32(5, 17, 1, 1))
    x, mean = body.input("x", f32(3, 17, 6, 7)), body.input("mean", f32(17))
    dx = body.emit(Conv2dInputGrad(size=(6, 7)), dy, w)
    masked = body.emit(Map("select(0.0 < b, a, 0.0)"), dx, x)
    return body.build([masked, *body.emit_all(BatchNormSums(21), masked, x, mean)])
