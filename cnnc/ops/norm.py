"""Batch normalization (Ioffe and Szegedy 2015): by given statistics, and by those of the batch.

A network declares the first; passes/use_batch_statistics.py makes the second of it for training. Behind the
derivative the statistics become sums over parts of the batch, which are computed side by side
(passes/lower_batch_norm.py; batch_sums.py), and all else becomes elementwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.batch_sums import BatchNormSums, expect_channels, part_rows, row_count
from cnnc.ops.check import expect_type, take_floats
from cnnc.ops.elementwise import Map, channel_shape
from cnnc.ops.reduce import Sum

_POSITIVE = (0.5, 2.0)

_BATCHES = ((2, 3, 7, 9), (1, 33, 5, 1), (9, 17), (3, 1, 1, 1))


@dataclass(frozen=True)
class BatchNorm(Op):
    """x [N,C] or [N,C,H,W], weight [C], bias [C], mean [C], variance [C] -> y of x's shape.

    y = (x - mean) / sqrt(variance + eps) * weight + bias. In a network, mean and variance are the running
    statistics, params that no optimizer moves: a training step takes the batch's instead, and lets the
    running ones follow by the share `momentum`.
    """

    name: ClassVar[str] = "batch_norm"
    eps: float = 1e-5
    momentum: float = 0.1

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        names = ("weight", "bias", "mean", "variance")
        x, *channels = take_floats(operands, "input", *names)
        expect_channels(x)
        for name, type in zip(names, channels, strict=True):
            expect_type(name, type, TensorType(x.dtype, channel_shape(x)), f"the input {x}")
        return (x,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        x, *channels = operands
        weight, bias, mean, variance = (c.reshape(1, -1, *(1 for _ in x.shape[2:])) for c in channels)
        return ((x - mean) / np.sqrt(variance + self.eps) * weight + bias,)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        """By all operands, from the sums of dy and of dy * (x - mean) over each channel."""
        (x, weight, _, mean, variance), (dy,) = operands, result_grads
        scale = emit.emit(self.scale, weight, variance)
        dy_sum, product_sum = channel_sums(emit, dy, x, mean)
        return (
            emit.emit(Map("a * b"), dy, scale),
            emit.emit(self.scale, product_sum, variance),
            dy_sum,
            emit.emit(Map("-(a * b)"), dy_sum, scale),
            emit.emit(Map(f"-0.5 * a * b / (c + {self.eps!r})"), product_sum, scale, variance),
        )

    @property
    def scale(self) -> Map:
        """(weight, variance) -> weight / sqrt(variance + eps): what x is multiplied by; for the gradient of
        the weight, of the sum of dy * (x - mean) as well."""
        return Map(f"a / sqrt(b + {self.eps!r})")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for x in ((2, 3, 7, 9), (1, 33, 5, 1), (9, 17), (1, 1)):
            ranges = ((-1.0, 1.0),) * 4 + (_POSITIVE,)
            yield Sample(cls(), (f32(*x), *(f32(x[1]),) * 4), ranges)
        yield Sample(cls(eps=0.25), (f32(3, 7, 1, 1), *(f32(7),) * 4), ranges)


@dataclass(frozen=True)
class BatchNormTrain(Op):
    """x [N,C] or [N,C,H,W], weight [C], bias [C] -> y, normalized by the mean and variance of the batch."""

    name: ClassVar[str] = "batch_norm_train"
    eps: float = 1e-5

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, weight, bias = take_floats(operands, "input", "weight", "bias")
        statistics = BatchStatistics().infer(x)
        return BatchNorm(self.eps).infer(x, weight, bias, *statistics)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        return BatchNorm(self.eps).reference(*operands, *BatchStatistics().reference(operands[0]))

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        """With s the sum of dy, t that of dy * (x - mean), n the number of values and v = variance + eps,
        dx = weight / sqrt(v) * (dy - s / n - (x - mean) * t / (n * v)): one elementwise node."""
        (x, weight, _), (dy,) = operands, result_grads
        mean, variance = emit.emit_all(BatchStatistics(), x)
        by_given = BatchNorm(self.eps)
        scale = emit.emit(by_given.scale, weight, variance)
        dy_sum, product_sum = channel_sums(emit, dy, x, mean)
        share = -1.0 / row_count(x.type)
        slope = emit.emit(Map(f"{share!r} * a * b / (c + {self.eps!r})"), product_sum, scale, variance)
        offset = emit.emit(Map(f"{share!r} * a * b"), dy_sum, scale)
        dx = emit.emit(Map("a * c + ((b - d) * e + f)"), dy, x, scale, mean, slope, offset)
        return dx, emit.emit(by_given.scale, product_sum, variance), dy_sum

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for x in _BATCHES:
            yield Sample(cls(eps=0.25), (f32(*x), f32(x[1]), f32(x[1])))


@dataclass(frozen=True)
class BatchStatistics(Op):
    """x [N,C] or [N,C,H,W] -> mean [C], variance [C] over the batch and all pixels.

    The variance is divided by the number of values, not by one less, as normalization wants it.
    """

    name: ClassVar[str] = "batch_statistics"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        expect_channels(x)
        if row_count(x) == 1:
            raise ShapeError(f"got {x} as the input: statistics of a batch need several values in a channel")
        return (TensorType(x.dtype, channel_shape(x)),) * 2

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (x,) = operands
        axes = (0, *range(2, x.ndim))
        return x.mean(axis=axes), x.var(axis=axes)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        (x,), (mean, _), (d_mean, d_variance) = operands, results, result_grads
        count = row_count(x.type)
        slope = emit.emit(Map(f"a * {2.0 / count!r}"), d_variance)
        offset = emit.emit(Map(f"a * {1.0 / count!r}"), d_mean)
        return (emit.emit(Map("(a - b) * c + d"), x, mean, slope, offset),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for x in _BATCHES:
            yield Sample(cls(), (f32(*x),))


@dataclass(frozen=True)
class ScaleMaps(Op):
    """w [..,O,..], scale [O] -> w with the slice of each map o along `axis` multiplied by scale(o).

    So a normalization behind a contraction becomes part of its weights, in inference.
    """

    name: ClassVar[str] = "scale_maps"
    axis: int = 0

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        w, scale = take_floats(operands, "weight", "scale")
        if not 0 <= self.axis < w.rank:
            raise ShapeError(f"got {w} as the weight, which has no axis {self.axis}")
        expect_type("scale", scale, TensorType(w.dtype, (w.shape[self.axis],)), f"the weight {w}")
        return (w,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        w, scale = operands
        return (w * scale.reshape([-1 if axis == self.axis else 1 for axis in range(w.ndim)]),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError(f"{self.name} has no derivative: it stands in inference only")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (f32(17, 3, 3, 1), f32(17)))
        yield Sample(cls(), (f32(9, 33), f32(9)))
        yield Sample(cls(axis=1), (f32(7, 9, 1, 3), f32(9)))


def channel_sums(emit: Emitter, dy: Value, x: Value, mean: Value) -> tuple[Value, Value]:
    """The sums [C] of dy and of dy * (x - mean)."""
    first, second = emit.emit_all(BatchNormSums(part_rows(x.type)), dy, x, mean)
    return emit.emit(Sum((0,)), first), emit.emit(Sum((0,)), second)
