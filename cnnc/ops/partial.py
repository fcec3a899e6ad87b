"""Weight gradients of groups of images, and their sum: so that threads may share out the images.

A convolution with few weights and many pixels reads its maps only once if whoever reads them computes all
the weights. backend/algorithms/ says when these ops take the place of one weight gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
from cnnc.ops.winograd import WinogradWeightGrad


def _by_parts(dw: TensorType, images: int, parts: int) -> tuple[TensorType, ...]:
    """The type of the gradients of all parts."""
    expect_ints("parts", (parts,), 1, 1)
    if images % parts:
        raise ShapeError(f"{parts} parts do not divide {images} images")
    return (TensorType(dw.dtype, (parts, *dw.shape)),)


def _stacked(
    whole: Callable[..., tuple[Array, ...]], operands: Sequence[Array], parts: int
) -> tuple[Array, ...]:
    """The gradients of all parts, each by the `whole` of its images."""
    split = (np.split(operand, parts) for operand in operands)
    return (np.stack([whole(*each)[0] for each in zip(*split, strict=True)]),)


def _parted(sample: Sample, parts: int) -> tuple[TensorType, ...]:
    """The operands of a sample, with as many times more images."""
    return tuple(replace(t, shape=(parts * t.shape[0], *t.shape[1:])) for t in sample.operands)


@dataclass(frozen=True)
class PartialWeightGrad(Conv2dWeightGrad):
    """dy [N,O,H',W'], x [N,C,H,W] -> [P,O,C/groups,Kh,Kw]: the weight gradient of each of P = `parts`
    groups of N/P neighbouring images."""

    name: ClassVar[str] = "partial_weight_grad"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION})
    parts: int = 1

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (dw,) = super().infer(*operands)
        return _by_parts(dw, operands[0].shape[0], self.parts)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        return _stacked(super().reference, operands, self.parts)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError(f"{self.name} has no derivative: it stands behind the gradients")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in Conv2dWeightGrad.samples():
            op, images = sample.op, sample.operands[0].shape[0]
            assert isinstance(op, Conv2dWeightGrad)
            common = (op.stride, op.pad, op.dilation, op.groups, op.kernel)
            yield Sample(cls(*common, parts=images), sample.operands)
            yield Sample(cls(*common, parts=2), _parted(sample, 4))


@dataclass(frozen=True)
class PartialWinogradWeightGrad(WinogradWeightGrad):
    """The same by Winograd's minimal filtering."""

    name: ClassVar[str] = "partial_winograd_weight_grad"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION})
    parts: int = 1

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (dw,) = super().infer(*operands)
        return _by_parts(dw, operands[0].shape[0], self.parts)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        return _stacked(super().reference, operands, self.parts)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in WinogradWeightGrad.samples():
            op = sample.op
            assert isinstance(op, WinogradWeightGrad)
            yield Sample(cls(op.tile, op.kernel, op.pad, op.stride, parts=2), _parted(sample, 4))


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
