"""A convolution as the cost model sees it, and what a row of the table of algorithms is.

A cost is in cycles of one core: the larger of the arithmetic and the memory traffic, from the data of the
target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cnnc.backend.target import Target
from cnnc.ir.types import TensorType
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.passes.choose_algorithms import Rewrite

Convolution = Conv2d | Conv2dInputGrad | Conv2dWeightGrad
Pair = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """A convolution as the cost model sees it: `size` is that of the result of the forward
    direction, `source` that of its input."""

    op: Convolution
    channels: int
    maps: int
    kernel: Pair
    images: int
    size: Pair
    source: Pair

    @property
    def map_bytes(self) -> int:
        """Of the maps on both sides; strides are left out of account."""
        return 4 * self.images * math.prod(self.size) * (self.channels + self.maps)

    @property
    def macs(self) -> int:
        taps = self.kernel[0] * self.kernel[1]
        return self.images * math.prod(self.size) * taps * self.channels * self.maps // self.op.groups


def layer_of(op: Convolution, operands: tuple[TensorType, ...], result: TensorType) -> Layer:
    """The forward view of a convolution or of one of its gradients."""
    if isinstance(op, Conv2d):
        x, w = operands
        return Layer(op, x.shape[1], w.shape[0], _last_two(w), x.shape[0], _last_two(result), _last_two(x))
    if isinstance(op, Conv2dInputGrad):
        dy, w = operands
        return Layer(op, result.shape[1], dy.shape[1], _last_two(w), dy.shape[0], _last_two(dy), op.size)
    dy, x = operands
    return Layer(op, x.shape[1], dy.shape[1], op.kernel, x.shape[0], _last_two(dy), _last_two(x))


def _last_two(type: TensorType) -> Pair:
    return type.shape[-2], type.shape[-1]


Cost = Callable[[Target, Layer, bool], float]
"""Cycles on a target; the flag says whether the weights change with every run."""


@dataclass(frozen=True)
class Algorithm:
    """A row of the table: whether it can compute a layer, its cycles, and the rewriting it needs."""

    name: str
    applies: Callable[[Layer], bool]
    cycles: Cost
    rewrite: Callable[[Layer], Rewrite | None]


def by_tiles(
    name: str,
    suits: Callable[[Pair, Layer], bool],
    cycles: Callable[[Pair, Target, Layer, bool], float],
    rewrite: Callable[[Pair, Layer], Rewrite],
    tiles: tuple[Pair, ...],
) -> tuple[Algorithm, ...]:
    """A row of the table for every tile."""
    return tuple(
        Algorithm(f"{name} {t[0]}x{t[1]}", partial(suits, t), partial(cycles, t), partial(rewrite, t))
        for t in tiles
    )


def streaming(target: Target, weights: int) -> float:
    """What reading weights from memory adds: most of it happens while products are computed."""
    return STREAMING_SHARE * weights / target.memory_bytes_per_cycle


DIRECT_EFFICIENCY = 0.95
"""Share of the peak that the kernels reach on layers that fill their tiles."""

STREAMING_SHARE = 0.5
"""Of the time that memory takes to deliver weights."""
