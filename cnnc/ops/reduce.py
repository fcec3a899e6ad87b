"""Sums over whole axes, and their adjoint, which repeats a tensor along new axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_ints, take_floats


@dataclass(frozen=True)
class Sum(Op):
    """x -> y: the sum over `axes` (ascending), which disappear from the shape."""

    name: ClassVar[str] = "sum"
    axes: tuple[int, ...]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        _expect_axes(self.axes, x.rank)
        kept = tuple(n for axis, n in enumerate(x.shape) if axis not in self.axes)
        return (TensorType(x.dtype, kept),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        return (np.asarray(x.sum(axis=self.axes), dtype=x.dtype),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        sizes = tuple(operands[0].type.shape[axis] for axis in self.axes)
        return (emit.emit(Broadcast(self.axes, sizes), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(axes=(0, 2, 3)), (f32(3, 7, 9, 5),))
        yield Sample(cls(axes=(0, 2, 3)), (f32(2, 33, 1, 17),))
        yield Sample(cls(axes=(0,)), (f32(17, 9),))
        yield Sample(cls(axes=(1,)), (f32(3, 7),))
        yield Sample(cls(axes=(0, 1)), (f32(7, 33),))
        yield Sample(cls(axes=(0,)), (f32(1),))


@dataclass(frozen=True)
class Broadcast(Op):
    """x -> y: repeats x along new axes; `axes` (ascending) are their places in y, `sizes` their sizes."""

    name: ClassVar[str] = "broadcast"
    axes: tuple[int, ...]
    sizes: tuple[int, ...]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        _expect_axes(self.axes, x.rank + len(self.axes))
        expect_ints("sizes", self.sizes, len(self.axes), 1)
        shape = list(x.shape)
        for axis, size in zip(self.axes, self.sizes, strict=True):
            shape.insert(axis, size)
        return (TensorType(x.dtype, tuple(shape)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (y,) = operands
        for axis, size in zip(self.axes, self.sizes, strict=True):
            y = np.repeat(np.expand_dims(y, axis), size, axis)
        return (y,)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(Sum(self.axes), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(axes=(0, 2, 3), sizes=(3, 9, 5)), (f32(7),))
        yield Sample(cls(axes=(1,), sizes=(17,)), (f32(9),))
        yield Sample(cls(axes=(0, 1), sizes=(7, 3)), (f32(),))


def _expect_axes(axes: tuple[int, ...], rank: int) -> None:
    if list(axes) != sorted(set(axes)) or not all(0 <= axis < rank for axis in axes) or not axes:
        shown = ",".join(map(str, axes))
        raise ShapeError(f"axes must be ascending axes of a tensor of {rank} axes, got ({shown})")
