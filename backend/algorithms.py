"""The algorithms of contractions and what each is expected to cost: what passes/choose_algorithms.py reads.

A cost is in cycles of one core: the larger of the arithmetic and the memory traffic, from the data of the
target. To add an algorithm, write its op and kernel, and add a row to ALGORITHMS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from cnnc.backend.kernels.tiles import LONG_ROW, block_for
from cnnc.backend.kernels.weight_grad_parts import CACHED
from cnnc.backend.kernels.winograd_blocks import Inline, Work, choose_blocks, filter_run
from cnnc.backend.kernels.winograd_parts import Work as GradWork
from cnnc.backend.kernels.winograd_parts import choose_parts
from cnnc.backend.target import Target
from cnnc.ir.graph import Value
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.partial import PartialWeightGrad, SumParts
from cnnc.ops.winograd import (
    InlineWinogradConv2d,
    Tiling,
    WinogradConv2d,
    WinogradWeightGrad,
    WinogradWeights,
)
from cnnc.ops.winograd_matrices import has_algorithm
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
    def map_bytes(self) -> int:
        """Of the maps on both sides; strides are left out of account."""
        return 4 * self.images * math.prod(self.size) * (self.channels + self.maps)

    @property
    def macs(self) -> int:
        taps = self.kernel[0] * self.kernel[1]
        return self.images * math.prod(self.size) * taps * self.channels * self.maps // self.op.groups


Cost = Callable[[Target, Layer, bool], float]
"""Cycles on a target; the flag says whether the weights change with every run."""


@dataclass(frozen=True)
class Algorithm:
    """A row of the table: whether it can compute a layer, its cycles, and the rewriting it needs."""

    name: str
    applies: Callable[[Layer], bool]
    cycles: Cost
    rewrite: Callable[[Layer], Rewrite | None]


@dataclass(frozen=True)
class Algorithms:
    """The book of a target, the same for any number of threads, for no bit may depend on it.

    With `strict` no algorithm that sums across taps in another order is offered; `train` says that weights
    change with every run, so that transforming them counts.
    """

    target: Target
    strict: bool = False
    train: bool = False

    def __call__(self, op: Op, operands: tuple[TensorType, ...], result: TensorType) -> tuple[Candidate, ...]:
        if not isinstance(op, Convolution) or isinstance(op, PartialWeightGrad):
            return ()
        layer, target = _layer(op, operands, result), self.target.suited_to()
        return tuple(
            Candidate(a.name, a.cycles(target, layer, self.train), a.rewrite(layer))
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


def _direct_cycles(target: Target, layer: Layer, train: bool) -> float:
    """Multiply-accumulates at the rate of full tiles; lanes that hold no map count as well."""
    lanes, op = target.lanes, layer.op
    along = (layer.channels if isinstance(op, Conv2dInputGrad) else layer.maps) // op.groups
    waste = math.ceil(along / lanes) * lanes / along if along > lanes // 2 else 1.2
    is_slow = isinstance(op, Conv2dWeightGrad) and layer.map_bytes > CACHED * target.l2_bytes
    efficiency = REREAD_EFFICIENCY if is_slow else DIRECT_EFFICIENCY
    rate = target.lanes * target.fma_units / (1 if target.has_fma else 2)
    weights = 4 * layer.channels * layer.maps // op.groups * math.prod(layer.kernel)
    return layer.macs * waste / rate / efficiency + _streaming(target, weights)


def _by_images_cycles(target: Target, layer: Layer, train: bool) -> float:
    """As computed directly, with maps read once, and partial gradients written and summed."""
    weights = layer.channels * layer.maps // layer.op.groups * math.prod(layer.kernel)
    summing = SUM_CYCLES * image_parts(layer.images) * weights / target.lanes + CALL_CYCLES
    once = replace(layer, op=Conv2d(groups=layer.op.groups))
    return _direct_cycles(target, once, train) + summing


def _winograd_cycles(tile: _Pair, target: Target, layer: Layer, train: bool) -> float:
    """What the kernels' own models say, and the transformed weights read, in training also written."""
    if isinstance(layer.op, Conv2dWeightGrad):
        return _winograd_weight_grad_cycles(tile, target, layer)
    weights = 4 * _tiling(tile, layer).points * layer.channels * layer.maps
    transformed = weights / TRANSFORMED_BYTES_PER_CYCLE if train else 0.0
    products = choose_blocks(target, _winograd_work(tile, target, layer), layer.images).cycles(target)
    least = weights / target.memory_bytes_per_cycle
    return max(products + _streaming(target, weights), least) + transformed


def _inline_winograd_cycles(tile: _Pair, target: Target, layer: Layer, train: bool) -> float:
    """What the kernel's own model says, reading the weights included."""
    work, is_turned = _winograd_work(tile, target, layer), isinstance(layer.op, Conv2dInputGrad)
    unit = block_for(target, LONG_ROW, work.channels) if is_turned else 1
    columns = work.tiling.axes[1].points
    run = filter_run(target, columns, work.width * work.map_lanes, work.channels, unit)
    inline = Inline(math.prod(layer.kernel), -(-work.channels // run), is_turned)
    return choose_blocks(target, replace(work, inline=inline), layer.images).cycles(target)


def _winograd_work(tile: _Pair, target: Target, layer: Layer) -> Work:
    """A convolution, or the one that an input gradient is."""
    channels, maps = layer.channels, layer.maps
    if isinstance(layer.op, Conv2dInputGrad):
        channels, maps = maps, channels
    packed = block_for(target, LONG_ROW, maps)
    lanes, tiling = min(target.lanes, packed), _tiling(tile, layer)
    blocks, along = -(-maps // packed), min(target.lanes, channels)
    return Work(tiling, layer.images, channels, along, blocks, packed // lanes, lanes)


def _tiling(tile: _Pair, layer: Layer) -> Tiling:
    """The tiles over the maps that are computed, or over their gradients."""
    size = layer.op.size if isinstance(layer.op, Conv2dInputGrad) else layer.size
    return Tiling(tile, layer.kernel, layer.op.stride, size)


def _winograd_weight_grad_cycles(tile: _Pair, target: Target, layer: Layer) -> float:
    channels, maps = (-(-n // target.lanes) for n in (layer.channels, layer.maps))
    block = block_for(target, LONG_ROW, layer.maps)
    width = max(1, block // target.lanes)
    work = GradWork(channels, -(-maps // width) * width, width, _tiling(tile, layer), layer.images)
    return choose_parts(target, work).cycles(target) / DIRECT_EFFICIENCY


def _streaming(target: Target, weights: int) -> float:
    """What reading weights from memory adds: most of it happens while products are computed."""
    return STREAMING_SHARE * weights / target.memory_bytes_per_cycle


DIRECT_EFFICIENCY = 0.95
"""Share of the peak that the kernels reach on layers that fill their tiles."""

REREAD_EFFICIENCY = 0.6
"""The same of a weight gradient whose parts all read its maps from memory again."""

STREAMING_SHARE = 0.25
"""Of the time that memory takes to deliver weights."""

TRANSFORMED_BYTES_PER_CYCLE = 4.5
"""Transformed weights written, when they change in every step."""


SUM_CYCLES = 3
"""To write a vector of partial gradients, and to add it up."""

CALL_CYCLES = 5000
"""One more kernel, and the threads woken for it."""

MOST_PARTS = 16
"""Parts of the images: enough for the threads of a common machine."""


def image_parts(images: int) -> int:
    """Into how many equal parts images are shared out."""
    return max(parts for parts in range(1, MOST_PARTS + 1) if images % parts == 0)


def _suits_parts(layer: Layer) -> bool:
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


def _suits_winograd(tile: _Pair, layer: Layer) -> bool:
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


def _turned_pad(op: Convolution, kernel: _Pair) -> tuple[int, int, int, int]:
    """The padding of the convolution that an input gradient is."""
    top, left, bottom, right = op.pad
    return kernel[0] - 1 - top, kernel[1] - 1 - left, kernel[0] - 1 - bottom, kernel[1] - 1 - right


def _suits_inline_winograd(tile: _Pair, layer: Layer) -> bool:
    """What reads weights."""
    return _suits_winograd(tile, layer) and not isinstance(layer.op, Conv2dWeightGrad)


def _winograd_rewrite(tile: _Pair, layer: Layer) -> Rewrite:
    op, kernel = layer.op, layer.kernel

    def rewrite(emit: Emit, operands: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        if isinstance(op, Conv2dWeightGrad):
            return WinogradWeightGrad(tile, kernel, op.pad, op.stride), operands
        flipped, pad = _turned(op, kernel)
        u = emit(WinogradWeights(tile, flipped, op.stride), operands[1])
        return WinogradConv2d(tile, kernel, pad, op.stride), (operands[0], u)

    return rewrite


def _inline_winograd_rewrite(tile: _Pair, layer: Layer) -> Rewrite:
    def rewrite(emit: Emit, operands: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        flipped, pad = _turned(layer.op, layer.kernel)
        return InlineWinogradConv2d(tile, layer.kernel, pad, layer.op.stride, flipped), operands

    return rewrite


def _turned(op: Convolution, kernel: _Pair) -> tuple[bool, tuple[int, int, int, int]]:
    """Whether the weights are flipped, and the padding."""
    is_gradient = isinstance(op, Conv2dInputGrad)
    return is_gradient, _turned_pad(op, kernel) if is_gradient else op.pad


def _by_tiles(
    name: str,
    suits: Callable[[_Pair, Layer], bool],
    cycles: Callable[[_Pair, Target, Layer, bool], float],
    rewrite: Callable[[_Pair, Layer], Rewrite],
    tiles: tuple[_Pair, ...],
) -> tuple[Algorithm, ...]:
    """A row of the table for every tile."""
    return tuple(
        Algorithm(f"{name} {t[0]}x{t[1]}", partial(suits, t), partial(cycles, t), partial(rewrite, t))
        for t in tiles
    )


WINOGRAD_TILES: tuple[_Pair, ...] = ((5, 5), (4, 4), (2, 2), (4, 1), (1, 4), (2, 1), (1, 2))
INLINE_TILES: tuple[_Pair, ...] = ((5, 5), (4, 4))

ALGORITHMS: tuple[Algorithm, ...] = (
    Algorithm("direct", _always, _direct_cycles, _unchanged),
    Algorithm("by images", _suits_parts, _by_images_cycles, _by_images),
    *_by_tiles("winograd", _suits_winograd, _winograd_cycles, _winograd_rewrite, WINOGRAD_TILES),
    *_by_tiles(
        "inline winograd",
        _suits_inline_winograd,
        _inline_winograd_cycles,
        _inline_winograd_rewrite,
        INLINE_TILES,
    ),
)
"""The table. Kernels of 1x1 and depthwise convolutions, and of any stride, are forms of the direct one."""
