"""Tensors joined side by side along an axis, and a range of one: ops that only say where elements go.

Each is the other's derivative. Where channels are innermost in memory neither moves data: the buffer
plan (passes/channel_parts.py) lets the parts lie inside the rows of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample, Trait
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import take_floats
from cnnc.ops.shape import Constant


@dataclass(frozen=True)
class Concat(Op):
    """Two tensors or more -> one: equal but along `axis`, where they stand one behind the other."""

    name: ClassVar[str] = "concat"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.JOIN})
    axis: int = 1

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        if len(operands) < 2:
            raise ShapeError(f"takes two operands or more, got {len(operands)}")
        take_floats(operands, *(f"operand {number}" for number in range(len(operands))))
        first = operands[0]
        _expect_axis(self.axis, first)
        for number, operand in enumerate(operands):
            if operand.rank != first.rank or _resized(operand, self.axis, 1) != _resized(first, self.axis, 1):
                raise ShapeError(
                    f"operand {number} is {operand}; but for axis {self.axis} it must be {first}"
                )
        return (_resized(first, self.axis, sum(o.shape[self.axis] for o in operands)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        return (np.concatenate(operands, axis=self.axis),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        sizes = [o.type.shape[self.axis] for o in operands]
        starts = accumulate(sizes, initial=0)
        ranges = zip(starts, sizes, strict=False)
        return [emit.emit(Slice(self.axis, start, size), result_grads[0]) for start, size in ranges]

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (f32(2, 3, 7, 9), f32(2, 17, 7, 9), f32(2, 1, 7, 9)))
        yield Sample(cls(), (f32(1, 33, 1, 1), f32(1, 7, 1, 1)))
        yield Sample(cls(), (f32(3, 9), f32(3, 33)))
        yield Sample(cls(axis=2), (f32(1, 7, 3, 5), f32(1, 7, 1, 5)))
        yield Sample(cls(axis=0), (f32(7, 9), f32(1, 9), f32(17, 9)))
        yield Sample(cls(axis=0), (f32(7, 33, 1, 1), f32(1, 33, 1, 1), f32(16, 33, 1, 1)))


@dataclass(frozen=True)
class Slice(Op):
    """x -> its `size` elements along `axis` from `start` on."""

    name: ClassVar[str] = "slice"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.PART})
    axis: int
    start: int
    size: int

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        _expect_axis(self.axis, x)
        if self.size < 1 or self.start < 0 or self.start + self.size > x.shape[self.axis]:
            last = self.start + self.size - 1
            raise ShapeError(f"the input {x} has no elements {self.start} to {last} along axis {self.axis}")
        return (_resized(x, self.axis, self.size),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        return (np.take(operands[0], range(self.start, self.start + self.size), axis=self.axis),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        """The gradient with zeros before and behind it."""
        x, dy = operands[0].type, result_grads[0]
        rest = x.shape[self.axis] - self.start - self.size
        before, behind = (
            [emit.emit(Constant((0.0,), _resized(x, self.axis, size).shape, x.dtype))] if size else []
            for size in (self.start, rest)
        )
        joined = [*before, dy, *behind]
        return (emit.emit(Concat(self.axis), *joined) if len(joined) > 1 else dy,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1, 3, 17), (f32(2, 33, 7, 9),))
        yield Sample(cls(1, 0, 7), (f32(1, 9, 5, 1),))
        yield Sample(cls(1, 0, 9), (f32(3, 9, 1, 7),))
        yield Sample(cls(3, 2, 5), (f32(1, 3, 7, 9),))
        yield Sample(cls(0, 8, 9), (f32(17, 7),))


def _expect_axis(axis: int, type: TensorType) -> None:
    if not 0 <= axis < type.rank:
        raise ShapeError(f"got {type} as an operand, which has no axis {axis}")


def _resized(type: TensorType, axis: int, size: int) -> TensorType:
    """The type with `size` elements along `axis`."""
    return TensorType(type.dtype, (*type.shape[:axis], size, *type.shape[axis + 1 :]))
