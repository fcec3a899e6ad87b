"""The direct method, and weight gradients summed over parts of the images."""

from __future__ import annotations

import math
from dataclasses import replace

from cnnc.backend.algorithms.layer import DIRECT_EFFICIENCY, Algorithm, Layer, streaming
from cnnc.backend.kernels.weight_grad_parts import CACHED
from cnnc.backend.target import Target
from cnnc.ir.graph import Value
from cnnc.ir.op import Op
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.partial import PartialWeightGrad, SumParts
from cnnc.passes.choose_algorithms import Emit, Rewrite


def _direct_cycles(target: Target, layer: Layer, train: bool) -> float:
    """Multiply-accumulates at the rate of full tiles; lanes that hold no map count as well."""
    lanes, op = target.lanes, layer.op
    along = (layer.channels if isinstance(op, Conv2dInputGrad) else layer.maps) // op.groups
    waste = math.ceil(along / lanes) * lanes / along if along > lanes // 2 else 1.2
    is_slow = isinstance(op, Conv2dWeightGrad) and layer.map_bytes > CACHED * target.l2_bytes
    efficiency = REREAD_EFFICIENCY if is_slow else DIRECT_EFFICIENCY
    rate = target.lanes * target.fma_units / (1 if target.has_fma else 2)
    weights = 4 * layer.channels * layer.maps // op.groups * math.prod(layer.kernel)
    return layer.macs * waste / rate / efficiency + streaming(target, weights)


def _by_images_cycles(target: Target, layer: Layer, train: bool) -> float:
    """As computed directly, with maps read once, and partial gradients written and summed."""
    weights = layer.channels * layer.maps // layer.op.groups * math.prod(layer.kernel)
    once = replace(layer, op=Conv2d(groups=layer.op.groups))
    return _direct_cycles(target, once, train) + summing_cycles(target, image_parts(layer.images), weights)


def summing_cycles(target: Target, parts: int, weights: int) -> float:
    """Of writing partial gradients and adding them up."""
    return SUM_CYCLES * parts * weights / target.lanes + CALL_CYCLES


REREAD_EFFICIENCY = 0.6
"""The same of a weight gradient whose parts all read its maps from memory again."""

SUM_CYCLES = 3
"""To write a vector of partial gradients, and to add it up."""

CALL_CYCLES = 5000
"""One more kernel, and the threads woken for it."""

MOST_PARTS = 16
"""Parts of the images: enough for the threads of a common machine."""


def image_parts(images: int) -> int:
    """Into how many equal parts images are shared out."""
    return max(parts for parts in range(1, MOST_PARTS + 1) if images % parts == 0)


def suits_parts(layer: Layer) -> bool:
    """A weight gradient of several images."""
    return isinstance(layer.op, Conv2dWeightGrad) and image_parts(layer.images) > 1


def _by_images(layer: Layer) -> Rewrite:
    op = layer.op

    def rewrite(emit: Emit, operands: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        assert isinstance(op, Conv2dWeightGrad)
        common = (op.stride, op.pad, op.dilation, op.groups, op.kernel)
        gradients = emit(PartialWeightGrad(*common, parts=image_parts(layer.images)), *operands)
        return SumParts(), (gradients,)

    return rewrite


def _always(layer: Layer) -> bool:
    return True


def _unchanged(layer: Layer) -> Rewrite | None:
    return None


DIRECT: tuple[Algorithm, ...] = (
    Algorithm("direct", _always, _direct_cycles, _unchanged),
    Algorithm("by images", suits_parts, _by_images_cycles, _by_images),
)
"""Kernels of 1x1 and depthwise convolutions, and of any stride, are forms of the direct one."""
