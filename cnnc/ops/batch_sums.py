"""Sums over a batch by channel, as batch normalization needs them, in parts that are computed side by side.

A part is a number of rows, and a row is one image's channels at one pixel: x [N,C,H,W] has N*H*W of them,
in that order, x [N,C] has N. How many rows a part has does not depend on how parts are divided among threads,
so results do not either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample, Trait
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_ints, expect_type, take_floats

MOST_PARTS = 64
"""Enough to keep many threads busy, few enough to be put together in no time."""

LEAST_ELEMENTS = 1 << 15
"""Of a part: reading them takes long enough that another thread is worth waking."""


def part_rows(x: TensorType) -> int:
    """How many rows of `x` make a part: a power of two, which kernels can cut into equal blocks."""
    rows, channels = row_count(x), x.shape[1]
    part = 1
    while part < rows and (part * MOST_PARTS < rows or part * channels < LEAST_ELEMENTS):
        part *= 2
    return part


def row_count(x: TensorType) -> int:
    return x.size // x.shape[1]


def expect_channels(x: TensorType) -> None:
    """Raise ShapeError unless `x` has a batch and a channel axis, and pixels or nothing behind them."""
    if x.rank not in (2, 4):
        raise ShapeError(f"got {x} as the input, which must have axes [N,C] or [N,C,H,W]")


@dataclass(frozen=True)
class RowParts:
    """The `rows` of each of `images`, or of all in one, cut into parts of `part`, the last the rest."""

    images: int
    rows: int
    part: int

    @property
    def parts(self) -> int:
        """Of each image, or of all."""
        return -(-self.rows // self.part)


@dataclass(frozen=True)
class _InParts(Op):
    """The attribute and shapes the ops share: parts of `rows` rows, of which the last may have fewer."""

    rows: int

    def _parts(self, count: int) -> int:
        expect_ints("rows", (self.rows,), 1, 1)
        return -(-count // self.rows)

    def _cut(self, x: Array) -> list[Array]:
        """The parts of x, each [rows, C]."""
        flat = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
        return [flat[start : start + self.rows] for start in range(0, len(flat), self.rows)]

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError(f"{self.name} has no derivative: it stands behind the gradients")


@dataclass(frozen=True)
class BatchMoments(_InParts):
    """x [N,C] or [N,C,H,W] -> means [P,C], squares [P,C]: by part, the mean and the sum of (x - mean)^2."""

    name: ClassVar[str] = "batch_moments"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        expect_channels(x)
        return (TensorType(x.dtype, (self._parts(row_count(x)), x.shape[1])),) * 2

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        parts = self._cut(operands[0])
        means = np.stack([part.mean(axis=0) for part in parts])
        squares = [((p - mean) ** 2).sum(axis=0) for p, mean in zip(parts, means, strict=True)]
        return means, np.stack(squares)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for rows, *x in _CASES:
            yield Sample(cls(rows), (f32(*x),))
        yield Sample(cls(64), (f32(2, 9, 7, 17),), ((99.0, 101.0),))


@dataclass(frozen=True)
class MergeMoments(_InParts):
    """means [P,C], squares [P,C] of the parts of `count` rows -> mean [C], variance [C] of all.

    The variance is divided by `count`. Chan, Golub and LeVeque 1979: the squares of all are those of the
    parts and the part's rows times (its mean - mean of all)^2.
    """

    name: ClassVar[str] = "merge_moments"
    count: int

    @property
    def last(self) -> int:
        """Rows of the last part."""
        return self.count - (self._parts(self.count) - 1) * self.rows

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        means, squares = take_floats(operands, "means", "squares")
        expect_ints("count", (self.count,), 1, 1)
        if means.rank != 2 or means.shape[0] != self._parts(self.count):
            parts = self._parts(self.count)
            raise ShapeError(f"got {means} as the means; {self.count} rows have {parts} parts of {self.rows}")
        expect_type("squares", squares, means, f"the means {means}")
        return (TensorType(means.dtype, means.shape[1:]),) * 2

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        means, squares = operands
        counts = np.full((len(means), 1), self.rows, means.dtype)
        counts[-1] = self.last
        mean = (counts * means).sum(axis=0) / means.dtype.type(self.count)
        total = (squares + counts * (means - mean) ** 2).sum(axis=0)
        return mean, total / means.dtype.type(self.count)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for rows, *x in _CASES:
            count = row_count(f32(*x))
            parts = f32(-(-count // rows), x[1])
            yield Sample(cls(rows, count), (parts, parts), ((-1.0, 1.0), (0.0, 2.0)))


@dataclass(frozen=True)
class BatchNormSums(_InParts):
    """dy, x [N,C] or [N,C,H,W], mean [C] -> by part, the sums [P,C] of dy and of dy * (x - mean).

    Parts of no more rows than an image has are cut from each image by itself, so that the last of every
    image may have fewer: a kernel that computes dy can then compute the sums as well.
    """

    name: ClassVar[str] = "batch_norm_sums"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.SUMS})

    def cut(self, x: TensorType) -> RowParts:
        """How `x` is cut into the parts."""
        pixels = row_count(x) // x.shape[0]
        images, rows = (x.shape[0], pixels) if self.rows <= pixels else (1, row_count(x))
        return RowParts(images, rows, self.rows)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dy, x, mean = take_floats(operands, "result gradient", "input", "mean")
        expect_type("result gradient", dy, x, f"the input {x}")
        expect_channels(x)
        expect_type("mean", mean, TensorType(x.dtype, x.shape[1:2]), f"the input {x}")
        expect_ints("rows", (self.rows,), 1, 1)
        cut = self.cut(x)
        return (TensorType(x.dtype, (cut.images * cut.parts, x.shape[1])),) * 2

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, x, mean = operands
        images = self.cut(f32(*x.shape)).images
        pairs = [
            pair
            for dys, xs in zip(np.split(dy, images), np.split(x, images), strict=True)
            for pair in zip(self._cut(dys), self._cut(xs), strict=True)
        ]
        sums = np.stack([d.sum(axis=0) for d, _ in pairs])
        return sums, np.stack([(d * (p - mean)).sum(axis=0) for d, p in pairs])

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for rows, *x in _CASES:
            yield Sample(cls(rows), (f32(*x), f32(*x), f32(x[1])))


_CASES = (
    # rows, *x
    (8, 2, 3, 7, 9),
    (16, 1, 33, 5, 1),
    (4, 9, 17),
    (64, 1, 7, 3, 3),
    (16, 2, 72, 8, 4),
    (1, 3, 9),
    (28, 3, 8, 14, 7),
)
