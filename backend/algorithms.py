"""The algorithms of contractions and what each is expected to cost: what passes/choose_algorithms.py reads.

A cost is in cycles of one core: the larger of the arithmetic and the memory traffic, from the data of the
target. To add an algorithm, write its op and kernel, and add a row to ALGORITHMS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cnnc.backend.target import Target
from cnnc.ir.graph import Value
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from cnnc.passes.choose_algorithms import Candidate, Emit, Rewrite

Convolution = Conv2d | Conv2dInputGrad | Conv2dWeightGrad
_Pair = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """A convolution as the cost model sees it: `pixels` are those of the result of the forward direction."""

    op: Convolution
    channels: int
    maps: int
    kernel: _Pair
    images: int
    size: _Pair

    @property
    def macs(self) -> int:
        taps = self.kernel[0] * self.kernel[1]
        return self.images * math.prod(self.size) * taps * self.channels * self.maps // self.op.groups


Cost = Callable[[Target, Layer], float]


@dataclass(frozen=True)
class Algorithm:
    """A row of the table: whether it can compute a layer, its cycles, and the rewriting it needs."""

    name: str
    applies: Callable[[Layer], bool]
    cycles: Cost
    rewrite: Callable[[Layer], Rewrite | None]


@dataclass(frozen=True)
class Algorithms:
    """The book of a target. With `strict` no algorithm that sums across taps in another order is offered."""

    target: Target
    strict: bool = False

    def __call__(self, op: Op, operands: tuple[TensorType, ...], result: TensorType) -> tuple[Candidate, ...]:
        if not isinstance(op, Convolution):
            return ()
        layer = _layer(op, operands, result)
        return tuple(
            Candidate(a.name, a.cycles(self.target, layer), a.rewrite(layer))
            for a in ALGORITHMS
            if a.applies(layer) and not (self.strict and a.rewrite(layer) is not None)
        )


def _layer(op: Convolution, operands: tuple[TensorType, ...], result: TensorType) -> Layer:
    """The forward view of a convolution or of one of its gradients."""
    if isinstance(op, Conv2d):
        x, w = operands
        return Layer(op, x.shape[1], w.shape[0], _last_two(w), x.shape[0], _last_two(result))
    if isinstance(op, Conv2dInputGrad):
        dy, w = operands
        return Layer(op, result.shape[1], dy.shape[1], _last_two(w), dy.shape[0], _last_two(dy))
    dy, x = operands
    return Layer(op, x.shape[1], dy.shape[1], op.kernel, x.shape[0], _last_two(dy))


def _last_two(type: TensorType) -> _Pair:
    return type.shape[-2], type.shape[-1]


def _direct_cycles(target: Target, layer: Layer) -> float:
    """Multiply-accumulates at the rate of full tiles; lanes that hold no map count as well."""
    lanes = target.lanes
    is_input_grad = isinstance(layer.op, Conv2dInputGrad)
    along = (layer.channels if is_input_grad else layer.maps) // layer.op.groups
    waste = math.ceil(along / lanes) * lanes / along if along > lanes // 2 else 1.2
    efficiency = DIRECT_WGRAD_EFFICIENCY if isinstance(layer.op, Conv2dWeightGrad) else DIRECT_EFFICIENCY
    arithmetic = layer.macs * waste / _macs_per_cycle(target) / efficiency
    weights = 4 * layer.channels * layer.maps // layer.op.groups * math.prod(layer.kernel)
    return max(arithmetic, weights / target.memory_bytes_per_cycle)


def _winograd_cycles(tile: _Pair, target: Target, layer: Layer) -> float:
    """Products over all points, both transforms, and the transformed weights streamed once or more."""
    channels, maps = layer.channels, layer.maps
    points = math.prod(m + k - 1 for m, k in zip(tile, layer.kernel, strict=True))
    along = _result_size(layer)
    tiles = layer.images * math.prod(-(-n // m) for n, m in zip(along, tile, strict=True))
    padded = math.ceil(maps / target.lanes) * target.lanes
    products = points * tiles * channels * padded / _macs_per_cycle(target) / WINOGRAD_EFFICIENCY
    transforms = tiles * points * (channels + maps) * TRANSFORM_OPS / target.lanes
    weights = 4 * points * channels * maps
    share = weights / (target.memory_bytes_per_cycle if weights > target.l2_bytes else 64)
    return max(products, share) + transforms


def _result_size(layer: Layer) -> _Pair:
    """The pixels that are cut into tiles: of an input gradient those of the input."""
    return layer.op.size if isinstance(layer.op, Conv2dInputGrad) else layer.size


def _macs_per_cycle(target: Target) -> float:
    return target.lanes * target.fma_units / (1 if target.has_fma else 2)


DIRECT_EFFICIENCY = 0.9
DIRECT_WGRAD_EFFICIENCY = 0.75
WINOGRAD_EFFICIENCY = 0.85
"""Shares of the peak that the kernels reach on layers that fill their tiles."""

TRANSFORM_OPS = 8
"""Vector instructions per point, channel and tile of a transform, loads and stores included."""


def _always(layer: Layer) -> bool:
    return True


def _unchanged(layer: Layer) -> Rewrite | None:
    return None


def _suits_winograd(tile: _Pair, layer: Layer) -> bool:
    """Three taps on the axes that are cut into tiles of several outputs, one on the others; unit steps."""
    op, kernel = layer.op, layer.kernel
    if op.stride != (1, 1) or op.dilation != (1, 1) or op.groups != 1:
        return False
    if any(k != (3 if m > 1 else 1) for k, m in zip(kernel, tile, strict=True)):
        return False
    if min(layer.channels, layer.maps) < WINOGRAD_CHANNELS:
        return False
    return not isinstance(op, Conv2dInputGrad) or min(_turned_pad(op, kernel)) >= 0


WINOGRAD_CHANNELS = 8
"""With fewer channels or maps the transforms outweigh what the products save."""


def _turned_pad(op: Convolution, kernel: _Pair) -> tuple[int, int, int, int]:
    """The padding of the convolution that an input gradient is."""
    top, left, bottom, right = op.pad
    return kernel[0] - 1 - top, kernel[1] - 1 - left, kernel[0] - 1 - bottom, kernel[1] - 1 - right


def _winograd_rewrite(tile: _Pair, layer: Layer) -> Rewrite:
    op, kernel = layer.op, layer.kernel

    def rewrite(emit: Emit, operands: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        if isinstance(op, Conv2dWeightGrad):
            return WinogradWeightGrad(tile, kernel, op.pad), operands
        flipped = isinstance(op, Conv2dInputGrad)
        u = emit(WinogradWeights(tile, flipped), operands[1])
        pad = _turned_pad(op, kernel) if flipped else op.pad
        return WinogradConv2d(tile, kernel, pad), (operands[0], u)

    return rewrite


def _winograd(tile: _Pair) -> Algorithm:
    return Algorithm(
        f"winograd {tile[0]}x{tile[1]}",
        partial(_suits_winograd, tile),
        partial(_winograd_cycles, tile),
        partial(_winograd_rewrite, tile),
    )


ALGORITHMS: tuple[Algorithm, ...] = (
    Algorithm("direct", _always, _direct_cycles, _unchanged),
    *map(_winograd, ((4, 4), (2, 2), (4, 1), (1, 4), (2, 1), (1, 2))),
)
"""The table. Kernels of 1x1, depthwise and strided convolutions are forms of the direct one."""
