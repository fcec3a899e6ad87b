"""Dropout (Srivastava et al. 2014, scaled in training as is usual today), and the masks of a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_ints, expect_rank, take_floats
from cnnc.ops.elementwise import Elementwise
from cnnc.ops.philox import uniform


@dataclass(frozen=True)
class _Rated(Op):
    """The attributes the two ops share: the share of elements that become 0, and which those are."""

    rate: float
    seed: int

    def _check(self) -> None:
        if not 0 <= self.rate < 1:
            raise ShapeError(f"rate must be at least 0 and below 1, got {self.rate}")
        if not 0 <= self.seed < 2**32:
            raise ShapeError(f"seed must be a number of 32 bits, got {self.seed}")


@dataclass(frozen=True)
class Dropout(_Rated, Elementwise):
    """x -> x. Training replaces it by a product with a mask (passes/draw_masks.py)."""

    name: ClassVar[str] = "dropout"
    formula: ClassVar[str] = "a"

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        self._check()
        return super().infer(*operands)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(0.5, 7), (f32(3, 33),))
        yield Sample(cls(0.0, 0), (f32(1, 3, 5, 7),))


@dataclass(frozen=True)
class DropoutMask(_Rated):
    """step [] -> mask of `shape`: 0 for a share `rate` of the elements, 1 / (1 - rate) for the others.

    An element is 0 if the number that Philox (philox.py) draws under the key `seed` for its place and
    the step, rounded to a whole number, is below `rate`. Places are counted along N, H, W, C for a
    shape [N,C,H,W], else row-major.
    """

    name: ClassVar[str] = "dropout_mask"
    shape: tuple[int, ...] = ()

    @property
    def kept(self) -> float:
        """What elements that are not 0 are."""
        return 1.0 / (1.0 - self.rate)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (step,) = take_floats(operands, "step")
        expect_rank("step", step, "")
        self._check()
        expect_ints("shape", self.shape, len(self.shape), 1)
        return (TensorType(step.dtype, self.shape),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (step,) = operands
        places = np.arange(math.prod(self.shape))
        drawn = uniform(self.seed, np.rint(step).astype(np.float32), places)
        flat = np.where(drawn < np.float32(self.rate), 0.0, self.kept).astype(step.dtype)
        if len(self.shape) != 4:
            return (flat.reshape(self.shape),)
        n, c, height, width = self.shape
        return (np.ascontiguousarray(flat.reshape(n, height, width, c).transpose(0, 3, 1, 2)),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (None,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for rate, seed, shape in (
            (0.5, 0, (2, 17, 3, 5)),
            (0.4, 2**32 - 1, (7, 33)),
            (0.1, 12345, (9,)),
            (0.0, 1, (1, 1)),
            (0.25, 99, ()),
            (0.9, 3, (3, 7, 41, 9)),
        ):
            yield Sample(cls(rate, seed, shape), (f32(),), ((0, 1000),))
