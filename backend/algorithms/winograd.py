"""Winograd's minimal filtering, by transformed weights and by weights transformed as they are needed."""

from __future__ import annotations

import math
from dataclasses import replace

from cnnc.backend.algorithms.layer import (
    DIRECT_EFFICIENCY,
    Algorithm,
    Convolution,
    Layer,
    Pair,
    by_tiles,
    streaming,
)
from cnnc.backend.kernels.tiles import LONG_ROW, block_for
from cnnc.backend.kernels.winograd_blocks import Inline, Work, choose_blocks, filter_run
from cnnc.backend.kernels.winograd_parts import Work as GradWork
from cnnc.backend.kernels.winograd_parts import choose_parts
from cnnc.backend.target import Target
from cnnc.ir.graph import Value
from cnnc.ir.op import Op
from cnnc.ops.conv import Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.winograd import (
    InlineWinogradConv2d,
    Tiling,
    WinogradConv2d,
    WinogradWeightGrad,
    WinogradWeights,
)
from cnnc.ops.winograd_matrices import has_algorithm
from cnnc.passes.choose_algorithms import Emit, Rewrite


def cycles(tile: Pair, target: Target, layer: Layer, train: bool) -> float:
    """What the kernels' own models say, and the transformed weights read, in training also written."""
    if isinstance(layer.op, Conv2dWeightGrad):
        return _weight_grad_cycles(tile, target, layer)
    weights = 4 * _tiling(tile, layer).points * layer.channels * layer.maps
    transformed = weights / TRANSFORMED_BYTES_PER_CYCLE if train else 0.0
    products = choose_blocks(target, _work(tile, target, layer), layer.images).cycles(target)
    least = weights / target.memory_bytes_per_cycle
    return max(products + streaming(target, weights), least) + transformed


def _inline_cycles(tile: Pair, target: Target, layer: Layer, train: bool) -> float:
    """What the kernel's own model says, reading the weights included."""
    work, is_turned = _work(tile, target, layer), isinstance(layer.op, Conv2dInputGrad)
    unit = block_for(target, LONG_ROW, work.channels) if is_turned else 1
    columns = work.tiling.axes[1].points
    run = filter_run(target, columns, work.width * work.map_lanes, work.channels, unit)
    inline = Inline(math.prod(layer.kernel), -(-work.channels // run), is_turned)
    return choose_blocks(target, replace(work, inline=inline), layer.images).cycles(target)


def _work(tile: Pair, target: Target, layer: Layer) -> Work:
    """A convolution, or the one that an input gradient is."""
    channels, maps = layer.channels, layer.maps
    if isinstance(layer.op, Conv2dInputGrad):
        channels, maps = maps, channels
    packed = block_for(target, LONG_ROW, maps)
    lanes, tiling = min(target.lanes, packed), _tiling(tile, layer)
    blocks, along = -(-maps // packed), min(target.lanes, channels)
    return Work(tiling, layer.images, channels, along, blocks, packed // lanes, lanes)


def _tiling(tile: Pair, layer: Layer) -> Tiling:
    """The tiles over the maps that are computed, or over their gradients."""
    size = layer.op.size if isinstance(layer.op, Conv2dInputGrad) else layer.size
    return Tiling(tile, layer.kernel, layer.op.stride, size)


def _weight_grad_cycles(tile: Pair, target: Target, layer: Layer) -> float:
    channels, maps = (-(-n // target.lanes) for n in (layer.channels, layer.maps))
    block = block_for(target, LONG_ROW, layer.maps)
    width = max(1, block // target.lanes)
    work = GradWork(channels, -(-maps // width) * width, width, _tiling(tile, layer), layer.images)
    return choose_parts(target, work).cycles(target) / DIRECT_EFFICIENCY


TRANSFORMED_BYTES_PER_CYCLE = 4.5
"""Transformed weights written, when they change in every step."""


def suits(tile: Pair, layer: Layer) -> bool:
    """A fast algorithm on the axes that are cut into tiles of several outputs, one tap on the others."""
    op, kernel = layer.op, layer.kernel
    if op.dilation != (1, 1) or op.groups != 1 or (isinstance(op, Conv2dInputGrad) and op.stride != (1, 1)):
        return False
    if not all(has_algorithm(*axis) for axis in zip(tile, kernel, op.stride, strict=True)):
        return False
    if any(m == 1 < max(k, step) for m, k, step in zip(tile, kernel, op.stride, strict=True)):
        return False
    if min(layer.channels, layer.maps) < WINOGRAD_CHANNELS:
        return False
    if isinstance(op, Conv2dWeightGrad) and _tiling(tile, layer).points > MOST_SUMS:
        return False
    return not isinstance(op, Conv2dInputGrad) or min(_turned_pad(op, kernel)) >= 0


WINOGRAD_CHANNELS = 8
"""With fewer channels or maps the transforms outweigh what the products save."""

MOST_SUMS = 100
"""Points of a weight gradient: with 121, at stride 2, it takes three times what its products would."""


def _turned_pad(op: Convolution, kernel: Pair) -> tuple[int, int, int, int]:
    """The padding of the convolution that an input gradient is."""
    top, left, bottom, right = op.pad
    return kernel[0] - 1 - top, kernel[1] - 1 - left, kernel[0] - 1 - bottom, kernel[1] - 1 - right


def _suits_inline(tile: Pair, layer: Layer) -> bool:
    """What reads weights."""
    return suits(tile, layer) and not isinstance(layer.op, Conv2dWeightGrad)


def rewrite(tile: Pair, layer: Layer) -> Rewrite:
    """To the weights and the convolution, or to the weight gradient."""
    op, kernel = layer.op, layer.kernel

    def rewritten(emit: Emit, operands: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        if isinstance(op, Conv2dWeightGrad):
            return WinogradWeightGrad(tile, kernel, op.pad, op.stride), operands
        flipped, pad = _turned(op, kernel)
        u = emit(WinogradWeights(tile, flipped, op.stride), operands[1])
        return WinogradConv2d(tile, kernel, pad, op.stride), (operands[0], u)

    return rewritten


def _inline_rewrite(tile: Pair, layer: Layer) -> Rewrite:
    def rewritten(emit: Emit, operands: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        flipped, pad = _turned(layer.op, layer.kernel)
        return InlineWinogradConv2d(tile, layer.kernel, pad, layer.op.stride, flipped), operands

    return rewritten


def _turned(op: Convolution, kernel: Pair) -> tuple[bool, tuple[int, int, int, int]]:
    """Whether the weights are flipped, and the padding."""
    is_gradient = isinstance(op, Conv2dInputGrad)
    return is_gradient, _turned_pad(op, kernel) if is_gradient else op.pad


WINOGRAD_TILES: tuple[Pair, ...] = ((5, 5), (4, 4), (3, 3), (2, 2), (4, 1), (1, 4), (2, 1), (1, 2))
INLINE_TILES: tuple[Pair, ...] = ((5, 5), (4, 4))

WINOGRAD: tuple[Algorithm, ...] = (
    *by_tiles("winograd", suits, cycles, rewrite, WINOGRAD_TILES),
    *by_tiles(
        "inline winograd",
        _suits_inline,
        _inline_cycles,
        _inline_rewrite,
        INLINE_TILES,
    ),
)
