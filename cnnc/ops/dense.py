"""Fully connected layers: the product that contracts every axis but the first, and its gradients.

Weights may keep the shape of the maps they read ([O,C,H,W] against [N,C,H,W]), so no flatten
stands between a convolution and a dense layer. The three ops are each other's derivatives, for
y = x w^T is linear in x and in w.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cnnc.errors import ShapeError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample, Trait
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_rank, take_floats

_SHAPES = ((1, 10, (84,)), (7, 33, (17,)), (3, 9, (3, 5, 7)), (9, 1, (1,)), (1, 17, (2, 1, 9)))


@dataclass(frozen=True)
class Dense(Op):
    """x [N,*S], w [O,*S] -> y [N,O]: y = x w^T, every axis of S contracted."""

    name: ClassVar[str] = "dense"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION, Trait.EPILOGUE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, w = take_floats(operands, "input", "weight")
        for name, type in (("input", x), ("weight", w)):
            if type.rank < 2:
                raise ShapeError(f"got {type} as the {name}, which must have 2 axes or more")
        if x.shape[1:] != w.shape[1:]:
            raise ShapeError(f"the input has {_each(x)} values per image, the weight expects {_each(w)}")
        return (TensorType(x.dtype, (x.shape[0], w.shape[0])),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        x, w = operands
        return (_rows(x) @ _rows(w).T,)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        (x, w), (dy,) = operands, result_grads
        return (emit.emit(DenseInputGrad(), dy, w), emit.emit(DenseWeightGrad(), dy, x))

    def macs(self, *operands: TensorType) -> int:
        x, w = operands
        return x.shape[0] * w.size

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for n, o, s in _SHAPES:
            yield Sample(cls(), (f32(n, *s), f32(o, *s)))


@dataclass(frozen=True)
class DenseInputGrad(Op):
    """dy [N,O], w [O,*S] -> dx [N,*S]: dx = dy w."""

    name: ClassVar[str] = "dense_input_grad"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION, Trait.EPILOGUE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dy, w = take_floats(operands, "result gradient", "weight")
        expect_rank("result gradient", dy, "N,O")
        if w.rank < 2 or w.shape[0] != dy.shape[1]:
            raise ShapeError(f"got {dy} as the result gradient, which does not fit the weight {w}")
        return (TensorType(dy.dtype, (dy.shape[0], *w.shape[1:])),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, w = operands
        return ((dy @ _rows(w)).reshape(dy.shape[0], *w.shape[1:]),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        (dy, w), (g,) = operands, result_grads
        return (emit.emit(Dense(), g, w), emit.emit(DenseWeightGrad(), dy, g))

    def macs(self, *operands: TensorType) -> int:
        dy, w = operands
        return dy.shape[0] * w.size

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for n, o, s in _SHAPES:
            yield Sample(cls(), (f32(n, o), f32(o, *s)))


@dataclass(frozen=True)
class DenseWeightGrad(Op):
    """dy [N,O], x [N,*S] -> dw [O,*S]: dw = dy^T x."""

    name: ClassVar[str] = "dense_weight_grad"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION, Trait.UPDATE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dy, x = take_floats(operands, "result gradient", "input")
        expect_rank("result gradient", dy, "N,O")
        if x.rank < 2 or x.shape[0] != dy.shape[0]:
            raise ShapeError(f"got {dy} as the result gradient, which does not fit the input {x}")
        return (TensorType(dy.dtype, (dy.shape[1], *x.shape[1:])),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, x = operands
        return ((dy.T @ _rows(x)).reshape(dy.shape[1], *x.shape[1:]),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        (dy, x), (g,) = operands, result_grads
        return (emit.emit(Dense(), x, g), emit.emit(DenseInputGrad(), dy, g))

    def macs(self, *operands: TensorType) -> int:
        dy, x = operands
        return dy.shape[1] * x.size

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for n, o, s in _SHAPES:
            yield Sample(cls(), (f32(n, o), f32(n, *s)))


def _rows(x: Array) -> Array:
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def _each(type: TensorType) -> str:
    return "x".join(map(str, type.shape[1:]))
