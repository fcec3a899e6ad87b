"""Strided convolutions of few channels by Winograd's minimal filtering: first layers.

A convolution that sees every block of its input, as large as its stride, as one pixel has stride 1, as many
times more channels and as many times fewer taps, the last of which may be zeros: of 7x7 taps at stride 2 and
3 channels, 4x4 taps and 12 channels. From Ying et al., "Image Classification at Supercomputer Scale" (2018),
who multiply directly.

Weight gradients so small that threads could not share them out are computed for groups of images.
"""

from __future__ import annotations

import math
from dataclasses import replace

from cnnc.backend.algorithms import winograd
from cnnc.backend.algorithms.direct import image_parts, summing_cycles
from cnnc.backend.algorithms.layer import Algorithm, Layer, Pair, by_tiles
from cnnc.backend.target import Target
from cnnc.ir.graph import Value
from cnnc.ir.op import Op
from cnnc.ops.conv import Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.partial import PartialWinogradWeightGrad, SumParts
from cnnc.ops.space_to_depth import DepthToSpace, SpaceToDepth
from cnnc.passes.choose_algorithms import Emit, Rewrite

COPY_CYCLES = 1.0
"""To copy an element of the input, one of a few side by side."""

FEW = 64 * 64
"""Channels by maps below which a gradient has too few parts for the threads of a common machine."""


def _over_blocks(layer: Layer) -> Layer:
    """The layer as a convolution of blocks."""
    (down, across), (kh, kw) = layer.op.stride, layer.kernel
    kernel, channels = (-(-kh // down), -(-kw // across)), layer.channels * down * across
    source = layer.size[0] + kernel[0] - 1, layer.size[1] + kernel[1] - 1
    op = replace(layer.op, stride=(1, 1), pad=(0, 0, 0, 0))
    if isinstance(op, Conv2dWeightGrad):
        op = replace(op, kernel=kernel)
    return replace(layer, op=op, channels=channels, kernel=kernel, source=source)


def _padding(layer: Layer) -> tuple[int, int, int, int]:
    """What makes whole blocks of the input, as many as the convolution reads: (top, left, bottom, right)."""
    (rows, columns), (height, width) = _over_blocks(layer).source, layer.source
    (down, across), (top, left, _, _) = layer.op.stride, layer.op.pad
    return top, left, rows * down - top - height, columns * across - left - width


def _filling(layer: Layer) -> tuple[int, int, int, int]:
    """What makes whole blocks of the filter."""
    kernel, (kh, kw), (down, across) = _over_blocks(layer).kernel, layer.kernel, layer.op.stride
    return 0, 0, kernel[0] * down - kh, kernel[1] * across - kw


def _suits(tile: Pair, layer: Layer) -> bool:
    """Along both axes more taps than a block has pixels, and no rows or columns left over at the end."""
    op = layer.op
    if isinstance(op, Conv2dInputGrad) or op.stride == (1, 1) or op.dilation != (1, 1) or op.groups != 1:
        return False
    return min(_padding(layer)) >= 0 and winograd.suits(tile, _over_blocks(layer))


def _cycles(tile: Pair, target: Target, layer: Layer, train: bool) -> float:
    blocks = _over_blocks(layer)
    copied = COPY_CYCLES * blocks.images * blocks.channels * math.prod(blocks.source)
    weights, groups = blocks.channels * blocks.maps * math.prod(blocks.kernel), _groups(layer)
    summing = summing_cycles(target, groups, weights) if groups > 1 else 0.0
    return winograd.cycles(tile, target, blocks, train) + copied + summing


def _groups(layer: Layer) -> int:
    """Groups of images with gradients of their own; 1 where there is no need."""
    blocks = _over_blocks(layer)
    is_small = isinstance(layer.op, Conv2dWeightGrad) and blocks.channels * blocks.maps <= FEW
    return image_parts(layer.images) if is_small else 1


def _rewrite(tile: Pair, layer: Layer) -> Rewrite:
    blocks, stride, groups = _over_blocks(layer), layer.op.stride, _groups(layer)
    of_data, of_filter = SpaceToDepth(stride, _padding(layer)), SpaceToDepth(stride, _filling(layer))
    inner = winograd.rewrite(tile, blocks)

    def convolution(emit: Emit, operands: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        x, w = operands
        return inner(emit, (emit(of_data, x), emit(of_filter, w)))

    def gradient(emit: Emit, operands: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        sources = operands[0], emit(of_data, operands[1])
        if groups > 1:
            partial = PartialWinogradWeightGrad(tile, blocks.kernel, parts=groups)
            dw = emit(SumParts(), emit(partial, *sources))
        else:
            op, operands = inner(emit, sources)
            dw = emit(op, *operands)
        return DepthToSpace(stride, of_filter.pad), (dw,)

    return gradient if isinstance(layer.op, Conv2dWeightGrad) else convolution


SPACE_TO_DEPTH: tuple[Algorithm, ...] = by_tiles(
    "space_to_depth winograd", _suits, _cycles, _rewrite, ((5, 5), (4, 4), (2, 2))
)
