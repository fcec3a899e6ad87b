"""Losses: what `net.loss` takes. A loss adds its target input and its result to the graph."""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Value
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType
from cnnc.ops.loss import CorrectCount, SoftmaxCrossEntropy, SquaredError


@dataclass(frozen=True)
class Loss:
    """`op` takes a prediction and a target to a scalar; one that classifies also counts correct rows."""

    name: str
    op: Op
    classifies: bool

    def target(self, prediction: TensorType) -> tuple[str, TensorType]:
        """Name and type of the extra input: i32[N] class numbers, or the prediction's own type."""
        if self.classifies:
            return "labels", TensorType("i32", prediction.shape[:1])
        return "target", prediction

    def check(self, prediction: TensorType) -> None:
        """Raises ShapeError when the loss does not fit the prediction."""
        self.op.infer(prediction, self.target(prediction)[1])

    def append(self, builder: GraphBuilder, prediction: Value) -> tuple[Value, ...]:
        """Emit the loss; returns (loss, correct) when it classifies, else (loss,)."""
        target = builder.input(*self.target(prediction.type))
        loss = builder.emit(self.op, prediction, target, name="loss")
        if not self.classifies:
            return (loss,)
        return loss, builder.emit(CorrectCount(), prediction, target, name="correct")


softmax_cross_entropy = Loss("softmax_cross_entropy", SoftmaxCrossEntropy(), classifies=True)
squared_error = Loss("squared_error", SquaredError(), classifies=False)
