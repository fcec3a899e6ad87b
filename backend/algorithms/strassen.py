"""Convolutions of one tap as matrix products by Strassen's method: seven products of halves for eight."""

from __future__ import annotations

import math

from cnnc.backend.algorithms.direct import image_parts, suits_parts, summing_cycles
from cnnc.backend.algorithms.layer import Algorithm, Layer, streaming
from cnnc.backend.algorithms.winograd import TRANSFORMED_BYTES_PER_CYCLE
from cnnc.backend.kernels import strassen_blocks
from cnnc.backend.kernels.strassen_weight_grad_parts import Work, choose_parts
from cnnc.backend.target import Target
from cnnc.ir.graph import Value
from cnnc.ir.op import Op
from cnnc.ops.conv import Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.partial import PartialStrassenWeightGrad, SumParts
from cnnc.ops.strassen import StrassenConv2d, StrassenWeightGrad, StrassenWeights
from cnnc.passes.choose_algorithms import Emit, Rewrite


def _suits(layer: Layer) -> bool:
    """One tap on every pixel, and halves of channels and maps that fill short vectors at least."""
    if layer.op.groups != 1 or not layer.op.is_pointwise(layer.kernel):
        return False
    return not any(n % LEAST for n in (layer.channels, layer.maps))


def _suits_parts(layer: Layer) -> bool:
    """Such a weight gradient of several images."""
    return suits_parts(layer) and _suits(layer)


def _cycles(target: Target, layer: Layer, train: bool) -> float:
    if isinstance(layer.op, Conv2dWeightGrad):
        return _gradient_cycles(target, layer, 1)
    return _convolution_cycles(target, layer, train)


def _by_images_cycles(target: Target, layer: Layer, train: bool) -> float:
    """Of groups of images apart, and of adding up what they make."""
    parts = image_parts(layer.images)
    return _gradient_cycles(target, layer, parts) + summing_cycles(target, parts, layer.channels * layer.maps)


def _gradient_cycles(target: Target, layer: Layer, strips: int) -> float:
    """Of a weight gradient: what the division of its kernel says."""
    channels, maps = layer.channels // 2, layer.maps // 2
    pairs = -(-layer.images * math.prod(layer.size) // strips // 2)
    lanes, block = strassen_blocks.halves_lanes(target, maps), strassen_blocks.halves_block(target, maps)
    parts = choose_parts(target, Work(strips, pairs, channels, maps, lanes, block))
    return parts.number * parts.cycles + BEGIN_CYCLES


def _convolution_cycles(target: Target, layer: Layer, train: bool) -> float:
    """What the kernel's own model says, and the halves of weights read, in training also written. There the
    gradient lies in the same blocks of maps as the weights: by blocks of one vector it takes longer."""
    channels, maps = layer.channels // 2, layer.maps // 2
    if isinstance(layer.op, Conv2dInputGrad):
        channels, maps = maps, channels
    pixels, block = math.prod(layer.size), strassen_blocks.halves_block(target, maps)
    work = strassen_blocks.Work(layer.images, -(-pixels // 2), channels, maps, block)
    made = work.weight_bytes / TRANSFORMED_BYTES_PER_CYCLE if train else 0.0
    is_narrow = block < 2 * target.lanes <= layer.maps and not isinstance(layer.op, Conv2dInputGrad)
    gradient = NARROW_GRADIENT * layer.macs / target.lanes if train and is_narrow else 0.0
    return (
        strassen_blocks.cycles(target, work)
        + AHEAD * streaming(target, work.weight_bytes)
        + made
        + gradient
        + BEGIN_CYCLES
    )


def _rewrite(layer: Layer) -> Rewrite:
    flipped = isinstance(layer.op, Conv2dInputGrad)

    def rewritten(emit: Emit, operands: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        if isinstance(layer.op, Conv2dWeightGrad):
            return StrassenWeightGrad(), operands
        return StrassenConv2d(), (operands[0], emit(StrassenWeights(flipped), operands[1]))

    return rewritten


def _by_images(layer: Layer) -> Rewrite:
    parts = image_parts(layer.images)

    def rewritten(emit: Emit, operands: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        return SumParts(), (emit(PartialStrassenWeightGrad(parts=parts), *operands),)

    return rewritten


LEAST = 8
"""Channels and maps are multiples of it."""

AHEAD = 0.5
"""Of the weights that direct kernels wait for: here all are asked for ahead."""

NARROW_GRADIENT = 0.5
"""Cycles that each product of a weight gradient by a vector of maps takes more, by blocks of one vector."""

BEGIN_CYCLES = 10_000
"""Until weights and pixels arrive, of which more are needed at once: small layers are no faster so."""

STRASSEN: tuple[Algorithm, ...] = (
    Algorithm("strassen", _suits, _cycles, _rewrite),
    Algorithm("strassen by images", _suits_parts, _by_images_cycles, _by_images),
)
