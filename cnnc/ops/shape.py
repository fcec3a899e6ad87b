"""Ops that move or make values and compute nothing: views, padding, cropping, relayout, constants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.graph import Value
from cnnc.ir.layout import Layout
from cnnc.ir.op import Emitter, Op, Sample, Trait
from cnnc.ir.types import DTYPES, Array, TensorType, f32
from cnnc.ops.check import expect_ints, expect_rank, take, take_floats


@dataclass(frozen=True)
class Flatten(Op):
    """[N,...] -> [N, product of the rest]."""

    name: ClassVar[str] = "flatten"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.VIEW})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take(operands, "input")
        if x.rank < 1:
            raise ShapeError(f"got {x} as the input, which must have a batch axis")
        return (TensorType(x.dtype, (x.shape[0], math.prod(x.shape[1:]))),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        return (x.reshape(x.shape[0], math.prod(x.shape[1:])),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(Reshape(operands[0].type.shape), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in ((3, 5, 7, 1), (1, 16, 5, 5), (9, 17), (7,)):
            yield Sample(cls(), (f32(*shape),))


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order under another shape."""

    name: ClassVar[str] = "reshape"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.VIEW})
    shape: tuple[int, ...]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take(operands, "input")
        expect_ints("shape", self.shape, len(self.shape), 1)
        result = TensorType(x.dtype, self.shape)
        if result.size != x.size:
            raise ShapeError(f"the input {x} has {x.size} elements, {result} has {result.size}")
        return (result,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        return (operands[0].reshape(self.shape),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(Reshape(operands[0].type.shape), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(shape=(3, 5, 7)), (f32(3, 35),))
        yield Sample(cls(shape=(9, 1, 17)), (f32(17, 9),))
        yield Sample(cls(shape=(1,)), (f32(),))


@dataclass(frozen=True)
class Relayout(Op):
    """The identity on values; in memory a copy from layout tag `source` to `target` (ir/layout.py)."""

    name: ClassVar[str] = "relayout"
    source: str
    target: str

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take(operands, "input")
        for tag in (self.source, self.target):
            if _layout_rank(tag) != x.rank:
                raise ShapeError(f"the layout {tag!r} is for {_layout_rank(tag)} axes, the input is {x}")
        return (x,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        return (operands[0].copy(),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(Relayout(self.target, self.source), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls("abcd", "acdb"), (f32(2, 3, 7, 9),))
        yield Sample(cls("acdb", "abcd"), (f32(1, 17, 5, 1),))
        yield Sample(cls("abcd", "Acdb16a"), (f32(17, 3, 5, 5),))
        yield Sample(cls("ab", "ba"), (f32(33, 7),))


@dataclass(frozen=True)
class Pad2d(Op):
    """x [N,C,H,W] with zeros around each map: `pad` = (top, left, bottom, right)."""

    name: ClassVar[str] = "pad2d"
    pad: tuple[int, int, int, int]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        expect_rank("input", x, "N,C,H,W")
        expect_ints("pad", self.pad, 4, 0)
        n, c, h, w = x.shape
        top, left, bottom, right = self.pad
        return (TensorType(x.dtype, (n, c, h + top + bottom, w + left + right)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        top, left, bottom, right = self.pad
        return (np.pad(operands[0], ((0, 0), (0, 0), (top, bottom), (left, right))),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(Crop2d(self.pad), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(pad=(1, 2, 3, 0)), (f32(2, 3, 7, 9),))
        yield Sample(cls(pad=(0, 0, 0, 0)), (f32(1, 1, 5, 17),))
        yield Sample(cls(pad=(1, 1, 1, 1)), (f32(1, 17, 1, 1),))


@dataclass(frozen=True)
class Crop2d(Op):
    """x [N,C,H,W] without its border: `pad` = (top, left, bottom, right) rows and columns go."""

    name: ClassVar[str] = "crop2d"
    pad: tuple[int, int, int, int]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        expect_rank("input", x, "N,C,H,W")
        expect_ints("pad", self.pad, 4, 0)
        n, c, h, w = x.shape
        top, left, bottom, right = self.pad
        if h <= top + bottom or w <= left + right:
            shown = ",".join(map(str, self.pad))
            raise ShapeError(f"nothing is left of the {h}x{w} input when ({shown}) is cropped")
        return (TensorType(x.dtype, (n, c, h - top - bottom, w - left - right)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        top, left, bottom, right = self.pad
        return (x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right].copy(),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(Pad2d(self.pad), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(pad=(1, 2, 3, 0)), (f32(2, 3, 7, 9),))
        yield Sample(cls(pad=(0, 0, 0, 0)), (f32(1, 1, 5, 17),))
        yield Sample(cls(pad=(1, 1, 1, 1)), (f32(1, 17, 3, 3),))


@dataclass(frozen=True)
class Dilate2d(Op):
    """x [N,C,H,W] spread to every `stride` = (rows, columns)-th place, with zeros between:
    [N,C,(H-1)*rows+1,(W-1)*columns+1]. Strided convolutions' input gradients are made of it."""

    name: ClassVar[str] = "dilate2d"
    stride: tuple[int, int]

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        expect_rank("input", x, "N,C,H,W")
        expect_ints("stride", self.stride, 2, 1)
        n, c, h, w = x.shape
        rows, columns = self.stride
        return (TensorType(x.dtype, (n, c, (h - 1) * rows + 1, (w - 1) * columns + 1)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        n, c, h, w = x.shape
        rows, columns = self.stride
        y = np.zeros((n, c, (h - 1) * rows + 1, (w - 1) * columns + 1), x.dtype)
        y[:, :, ::rows, ::columns] = x
        return (y,)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError("dilate2d has no derivative: it is only made of gradients")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(stride=(2, 3)), (f32(2, 3, 4, 5),))
        yield Sample(cls(stride=(1, 2)), (f32(1, 17, 3, 1),))
        yield Sample(cls(stride=(2, 1)), (f32(2, 1, 1, 9),))


@dataclass(frozen=True)
class Constant(Op):
    """No operands -> a tensor of `value`, its elements in row-major order, or one for them all."""

    name: ClassVar[str] = "constant"
    value: tuple[float, ...]
    shape: tuple[int, ...] = ()
    dtype: str = "f32"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        take(operands)
        if self.dtype not in DTYPES:
            raise ShapeError(f"no dtype {self.dtype!r}; there are {', '.join(DTYPES)}")
        expect_ints("shape", self.shape, len(self.shape), 1)
        result = TensorType(self.dtype, self.shape)
        if len(self.value) not in (1, result.size):
            raise ShapeError(f"{len(self.value)} values do not fill {result}; give 1 or {result.size}")
        return (result,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        flat = np.broadcast_to(np.asarray(self.value, dtype=DTYPES[self.dtype]), math.prod(self.shape))
        return (flat.reshape(self.shape).copy(),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return ()

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(value=(0.5,), shape=(3, 7)), ())
        yield Sample(cls(value=(1.0, -2.0, 3.0), shape=(3,)), ())
        yield Sample(cls(value=(4.0,)), ())
        yield Sample(cls(value=(1, 0, 2), shape=(3,), dtype="i32"), ())


def _layout_rank(tag: str) -> int:
    try:
        return len(Layout(tag).axes)
    except ValueError as error:
        raise ShapeError(str(error)) from None
