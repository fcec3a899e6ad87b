"""Weight gradients of groups of images, and their sum: so that threads may share out the images.

A convolution with few weights and many pixels reads its maps only once if whoever reads them computes all
the weights. backend/algorithms/ says when these ops take the place of one weight gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample, Trait
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_ints, take_floats
from cnnc.ops.conv import Conv2dWeightGrad
from cnnc.ops.reduce import Broadcast
from cnnc.ops.strassen import StrassenWeightGrad
from cnnc.ops.winograd import WinogradWeightGrad


@dataclass(frozen=True)
class Partial(Op):
    """A weight gradient dy [N,...], x [N,...] -> [P,*S] of each of P = `parts` groups of N/P neighbouring
    images, where the next base makes one, [*S], of all images."""

    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION})
    parts: int = 1

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (dw,) = super().infer(*operands)
        expect_ints("parts", (self.parts,), 1, 1)
        images = operands[0].shape[0]
        if images % self.parts:
            raise ShapeError(f"{self.parts} parts do not divide {images} images")
        return (TensorType(dw.dtype, (self.parts, *dw.shape)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, x = (np.split(operand, self.parts) for operand in operands)
        parts = [super(Partial, self).reference(*each)[0] for each in zip(dy, x, strict=True)]
        return (np.stack(parts),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError(f"{self.name} has no derivative: it stands behind the gradients")


def parts_of(op: Op) -> int:
    """Into how many groups of images an op divides its own."""
    return op.parts if isinstance(op, Partial) else 1


def _with_more_images(sample: Sample, times: int) -> tuple[TensorType, ...]:
    """The operands of a sample."""
    return tuple(replace(t, shape=(times * t.shape[0], *t.shape[1:])) for t in sample.operands)


@dataclass(frozen=True)
class PartialWeightGrad(Partial, Conv2dWeightGrad):
    """dy [N,O,H',W'], x [N,C,H,W] -> [P,O,C/groups,Kh,Kw]."""

    name: ClassVar[str] = "partial_weight_grad"

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in Conv2dWeightGrad.samples():
            op, images = sample.op, sample.operands[0].shape[0]
            assert isinstance(op, Conv2dWeightGrad)
            common = (op.stride, op.pad, op.dilation, op.groups, op.kernel)
            yield Sample(cls(*common, parts=images), sample.operands)
            yield Sample(cls(*common, parts=2), _with_more_images(sample, 4))


@dataclass(frozen=True)
class PartialWinogradWeightGrad(Partial, WinogradWeightGrad):
    """The same by Winograd's minimal filtering, for one group of channels."""

    name: ClassVar[str] = "partial_winograd_weight_grad"

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in WinogradWeightGrad.samples():
            op = sample.op
            assert isinstance(op, WinogradWeightGrad)
            yield Sample(cls(op.tile, op.kernel, op.pad, op.stride, parts=2), _with_more_images(sample, 4))


@dataclass(frozen=True)
class PartialStrassenWeightGrad(Partial, StrassenWeightGrad):
    """The same of convolutions of one tap by Strassen's method, the pixels of each group being halved."""

    name: ClassVar[str] = "partial_strassen_weight_grad"

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in StrassenWeightGrad.samples():
            yield Sample(cls(parts=2), _with_more_images(sample, 4))


@dataclass(frozen=True)
class SumParts(Op):
    """x [P,*S] -> y [*S]: the sum over the first axis, in its order."""

    name: ClassVar[str] = "sum_parts"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.UPDATE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = take_floats(operands, "input")
        if not x.rank:
            raise ShapeError(f"got {x} as the input, which has no axis to sum over")
        return (TensorType(x.dtype, x.shape[1:]),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        return (operands[0].sum(axis=0),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        return (emit.emit(Broadcast((0,), operands[0].type.shape[:1]), result_grads[0]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape in ((1, 7), (2, 9, 17, 1, 3), (7, 33), (4, 5, 3, 3, 3), (3,), (2, 65, 33, 3, 3)):
            yield Sample(cls(), (f32(*shape),))
