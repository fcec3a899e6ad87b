"""A bias of its own for every position of the maps, as behind the last layer of AlphaGo's policy network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cnnc.errors import ShapeError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_rank, take_floats
from cnnc.ops.reduce import Sum


@dataclass(frozen=True)
class PositionBias(Op):
    """x [N,C,H,W], bias [C,H,W] -> y: x plus the bias, for every image."""

    name: ClassVar[str] = "position_bias"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, bias = take_floats(operands, "input", "bias")
        expect_rank("input", x, "N,C,H,W")
        if bias.shape != x.shape[1:]:
            raise ShapeError(f"got {bias} as the bias of {x}, which needs one value per channel and position")
        return (x,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        x, bias = operands
        return (x + bias,)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        (dy,) = result_grads
        return (dy, emit.emit(Sum((0,)), dy))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in ((3, 1, 9, 9), (2, 17, 3, 7), (1, 7, 1, 5), (1, 33, 1, 1)):
            yield Sample(cls(), (f32(*shape), f32(*shape[1:])))
