"""Convolution by Winograd's minimal filtering: transformed weights, the convolution, the weight gradient.

passes/choose_algorithms.py puts these in the place of convolutions with 3 to 5 taps along one axis or both,
of stride 1 or for 3 taps 2, and of their gradients, behind the derivative: they have none of their own. A
result is cut into tiles of mh x mw; data and filter are multiplied at n points along each axis, P = nh * nw
in all. An input gradient at stride 1 is the convolution of dy with flipped weights, padded by k - 1 - pad.
The matrices are in winograd_matrices.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from cnnc.ir.op import Sample, Trait
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_rank, expect_type, take_floats
from cnnc.ops.no_derivative import NoDerivative
from cnnc.ops.samples import LinkedSample
from cnnc.ops.window import Window
from cnnc.ops.winograd_matrices import Algorithm, Matrix, algorithm, transposed


@dataclass(frozen=True)
class Tiling:
    """How tiles of `tile` results cover a result of `size` (rows, columns) under a filter of `kernel` taps.

    Raises ShapeError where there is no algorithm.
    """

    tile: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        assert self.axes

    @cached_property
    def axes(self) -> tuple[Algorithm, Algorithm]:
        """The algorithms along rows and columns."""
        return algorithms(self.tile, self.kernel, self.stride)

    @cached_property
    def last(self) -> tuple[Algorithm, Algorithm]:
        """Those that suffice for the last tiles of several along rows and along columns, at stride 1."""
        rows, columns = (
            axis if axis.is_strided or count == 1 else axis.cut(size - (count - 1) * tile)
            for axis, count, size, tile in zip(self.axes, self.counts, self.size, self.tile, strict=True)
        )
        return rows, columns

    @property
    def steps(self) -> tuple[int, int]:
        """Rows and columns of data from one tile to the next."""
        return self.tile[0] * self.stride[0], self.tile[1] * self.stride[1]

    @property
    def points(self) -> int:
        """P: the products of a tile and a channel."""
        return self.axes[0].points * self.axes[1].points

    @property
    def counts(self) -> tuple[int, int]:
        """Tiles along each axis; the last ones may reach beyond the result."""
        return -(-self.size[0] // self.tile[0]), -(-self.size[1] // self.tile[1])

    def gathered(self, maps: Array, extent: tuple[int, int], steps: tuple[int, int]) -> Array:
        """[N,C,H,W] -> [N,C,tiles,extent]: what is under each tile, `steps` from one to the next, and zeros
        beyond the last."""
        (th, tw), (down, across) = self.counts, steps
        rows, columns = (th - 1) * down + extent[0], (tw - 1) * across + extent[1]
        widths = [max(0, rows - maps.shape[2]), max(0, columns - maps.shape[3])]
        filled = np.pad(maps, [(0, 0), (0, 0), (0, widths[0]), (0, widths[1])])
        windows = np.lib.stride_tricks.sliding_window_view(filled, extent, axis=(2, 3))
        return windows[:, :, : rows - extent[0] + 1 : down, : columns - extent[1] + 1 : across]

    def assembled(self, tiles: Array) -> Array:
        """[N,C,th,tw,mh,mw] -> [N,C,H',W']: the results of the tiles side by side, cut to size."""
        n, c, th, tw, mh, mw = tiles.shape
        whole = tiles.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, th * mh, tw * mw)
        return whole[:, :, : self.size[0], : self.size[1]].copy()


def algorithms(
    tile: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]
) -> tuple[Algorithm, Algorithm]:
    """Along rows and columns. Raises ShapeError where there is none."""
    rows, columns = zip(tile, kernel, stride, strict=True)
    return algorithm(*rows), algorithm(*columns)


def _both_axes(rows: Matrix, columns: Matrix, data: Array) -> Array:
    """rows X columns^T for the matrices X in the last two axes of `data`, in its dtype."""
    left, right = np.array(rows, dtype=data.dtype), np.array(columns, dtype=data.dtype)
    return np.asarray(left @ data @ right.T)


def _by_points(transformed: Array) -> Array:
    """[N,C,th,tw,nh,nw] -> [P,C,N*th*tw]."""
    moved = transformed.transpose(4, 5, 1, 0, 2, 3)
    return moved.reshape(moved.shape[0] * moved.shape[1], moved.shape[2], -1)


@dataclass(frozen=True)
class WinogradWeights(NoDerivative):
    """w [O,I,Kh,Kw] -> u [P,I,O], the transformed filters G w G^T.

    `flipped` weights are those of an input gradient: [P,O,I] of the filters turned by 180 degrees.
    """

    name: ClassVar[str] = "winograd_weights"
    tile: tuple[int, int] = (1, 1)
    flipped: bool = False
    stride: tuple[int, int] = (1, 1)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (w,) = take_floats(operands, "weight")
        expect_rank("weight", w, "O,I,Kh,Kw")
        o, i, kh, kw = w.shape
        rows, columns = algorithms(self.tile, (kh, kw), self.stride)
        points = rows.points * columns.points
        return (TensorType(w.dtype, (points, o, i) if self.flipped else (points, i, o)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        (w,) = operands
        filters = w[:, :, ::-1, ::-1].swapaxes(0, 1) if self.flipped else w
        rows, columns = algorithms(self.tile, w.shape[2:], self.stride)
        u = _both_axes(rows.filter, columns.filter, filters)
        return (np.ascontiguousarray(u.transpose(2, 3, 1, 0).reshape(-1, *filters.shape[1::-1])),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for (tile, _, _, stride), _, w in _CASES:
            yield Sample(cls(tile, stride=stride), (f32(*w),))
            yield Sample(cls(tile, flipped=True, stride=stride), (f32(*w),))


@dataclass(frozen=True)
class _Winograd(NoDerivative):
    """The attributes of the convolution and its weight gradient; pad = (top, left, bottom, right)."""

    tile: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    stride: tuple[int, int] = (1, 1)

    @property
    def window(self) -> Window:
        """The sliding window of the convolution."""
        return Window(self.kernel, self.stride, self.pad)

    def tiling(self, height: int, width: int) -> Tiling:
        """The tiles over the result of an input. Raises ShapeError where there is no algorithm."""
        return Tiling(self.tile, self.kernel, self.stride, self.window.result_size(height, width))


@dataclass(frozen=True)
class WinogradConv2d(_Winograd):
    """x [N,C,H,W], u [P,C,K] -> y [N,K,H',W'], the convolution by the weights that u was made of.

    Each tile of y is A^T [sum over c of (B^T d B) * u] A for the nh x nw data d under it. What hangs over is
    cut off, so that a kernel may do without the points that it alone needs: u must have been made of weights.
    """

    name: ClassVar[str] = "winograd_conv2d"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION, Trait.EPILOGUE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, u = take_floats(operands, "input", "transformed weight")
        expect_rank("input", x, "N,C,H,W")
        expect_rank("transformed weight", u, "P,C,K")
        tiling = self.tiling(*x.shape[2:])
        needed = TensorType(u.dtype, (tiling.points, x.shape[1], u.shape[2]))
        (mh, mw), (kh, kw) = self.tile, self.kernel
        why = f"the {kh}x{kw} convolution of {x} by tiles of {mh}x{mw}"
        expect_type("transformed weight", u, needed, why)
        return (TensorType(x.dtype, (x.shape[0], u.shape[2], *tiling.size)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        x, u = operands
        tiling = self.tiling(*x.shape[2:])
        rows, columns = tiling.axes
        data = tiling.gathered(self.window.padded(x), (rows.points, columns.points), tiling.steps)
        products = u.swapaxes(1, 2) @ _by_points(_both_axes(rows.data, columns.data, data))
        split = products.reshape(rows.points, columns.points, u.shape[2], x.shape[0], *tiling.counts)
        tiles = _both_axes(rows.result, columns.result, split.transpose(3, 2, 4, 5, 0, 1))
        return (tiling.assembled(tiles),)

    def macs(self, *operands: TensorType) -> int:
        """Those of the direct method, with which it is compared."""
        (y,) = self.infer(*operands)
        return y.size * operands[0].shape[1] * self.kernel[0] * self.kernel[1]

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for geometry, x, w in _CASES:
            yield convolution_sample(cls(*geometry), f32(*x), f32(*w))


def convolution_sample(op: WinogradConv2d, x: TensorType, w: TensorType) -> LinkedSample:
    """A sample whose second operand is made of weights w."""
    weights = WinogradWeights(op.tile, stride=op.stride)
    return LinkedSample(op, (x, *weights.infer(w)), links=((1, weights, (2,)),), drawn=(w,))


@dataclass(frozen=True)
class InlineWinogradConv2d(WinogradConv2d):
    """x [N,C,H,W], w [K,C,Kh,Kw] -> y [N,K,H',W']: the same, weights transformed as they are needed.

    `flipped` weights are [C,K,Kh,Kw], as for winograd_weights.
    """

    name: ClassVar[str] = "inline_winograd_conv2d"
    flipped: bool = False

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, w = take_floats(operands, "input", "weight")
        expect_rank("weight", w, "O,I,Kh,Kw")
        expect_type("weight", w, TensorType(w.dtype, (*w.shape[:2], *self.kernel)), "the kernel of the op")
        return super().infer(x, *self._weights.infer(w))

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        x, w = operands
        return super().reference(x, *self._weights.reference(w))

    @property
    def _weights(self) -> WinogradWeights:
        return WinogradWeights(self.tile, self.flipped, self.stride)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for geometry, x, w in _CASES:
            yield Sample(cls(*geometry), (f32(*x), f32(*w)))
            yield Sample(cls(*geometry, flipped=True), (f32(*x), f32(w[1], w[0], *w[2:])))


@dataclass(frozen=True)
class WinogradWeightGrad(_Winograd):
    """dy [N,K,H',W'], x [N,C,H,W] -> dw [K,C,Kh,Kw], the weight gradient of the convolution.

    dw = G^T [sum over all tiles of (B^T d B) * (A dy A^T)] G, for the data d and the gradients dy of each
    tile: the transposition of the convolution's bilinear form.
    """

    name: ClassVar[str] = "winograd_weight_grad"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION, Trait.UPDATE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dy, x = take_floats(operands, "result gradient", "input")
        expect_rank("result gradient", dy, "N,K,H,W")
        expect_rank("input", x, "N,C,H,W")
        needed = TensorType(dy.dtype, (x.shape[0], dy.shape[1], *self.tiling(*x.shape[2:]).size))
        expect_type(
            "result gradient", dy, needed, f"the {self.kernel[0]}x{self.kernel[1]} convolution of {x}"
        )
        return (TensorType(dy.dtype, (dy.shape[1], x.shape[1], *self.kernel)),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, x = operands
        tiling = self.tiling(*x.shape[2:])
        rows, columns = tiling.axes
        data = tiling.gathered(self.window.padded(x), (rows.points, columns.points), tiling.steps)
        v = _by_points(_both_axes(rows.data, columns.data, data))
        gradients = tiling.gathered(dy, self.tile, self.tile)
        d = _by_points(_both_axes(transposed(rows.result), transposed(columns.result), gradients))
        sums = (d @ v.swapaxes(1, 2)).reshape(rows.points, columns.points, dy.shape[1], x.shape[1])
        dw = _both_axes(transposed(rows.filter), transposed(columns.filter), sums.transpose(2, 3, 0, 1))
        return (np.ascontiguousarray(dw),)

    def macs(self, *operands: TensorType) -> int:
        """Those of the direct method, with which it is compared."""
        dy, x = operands
        return dy.size * x.shape[1] * self.kernel[0] * self.kernel[1]

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for geometry, x, w in _CASES:
            n, _, height, width = x
            size = cls(*geometry).window.result_size(height, width)
            yield Sample(cls(*geometry), (f32(n, w[0], *size), f32(*x)))


_Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int], tuple[int, int]]

_CASES: tuple[tuple[_Geometry, tuple[int, ...], tuple[int, ...]], ...] = (
    # (tile, kernel, pad, stride), x, w
    (((2, 2), (3, 3), (1, 1, 1, 1), (1, 1)), (2, 3, 7, 9), (17, 3, 3, 3)),
    (((4, 4), (3, 3), (1, 1, 1, 1), (1, 1)), (1, 17, 9, 17), (9, 17, 3, 3)),
    (((4, 4), (3, 3), (0, 0, 0, 0), (1, 1)), (3, 7, 10, 7), (33, 7, 3, 3)),
    (((4, 2), (3, 3), (2, 0, 1, 2), (1, 1)), (1, 5, 9, 7), (7, 5, 3, 3)),
    (((2, 4), (3, 3), (0, 2, 2, 1), (1, 1)), (2, 9, 5, 17), (1, 9, 3, 3)),
    (((1, 4), (1, 3), (0, 1, 0, 1), (1, 1)), (2, 7, 3, 17), (17, 7, 1, 3)),
    (((2, 1), (3, 1), (1, 0, 1, 0), (1, 1)), (1, 33, 7, 5), (8, 33, 3, 1)),
    (((1, 2), (3, 3), (1, 1, 1, 1), (1, 1)), (1, 2, 5, 7), (16, 2, 3, 3)),
    (((4, 4), (3, 3), (1, 1, 1, 1), (1, 1)), (1, 1, 1, 1), (1, 1, 3, 3)),
    (((4, 4), (3, 3), (2, 2, 2, 2), (1, 1)), (2, 16, 12, 8), (16, 16, 3, 3)),
    (((5, 5), (3, 3), (1, 1, 1, 1), (1, 1)), (1, 64, 7, 9), (40, 64, 3, 3)),
    (((5, 4), (3, 3), (0, 1, 2, 1), (1, 1)), (2, 7, 8, 10), (9, 7, 3, 3)),
    (((2, 2), (5, 5), (2, 2, 2, 2), (1, 1)), (2, 9, 9, 7), (17, 9, 5, 5)),
    (((2, 4), (5, 3), (0, 1, 4, 1), (1, 1)), (1, 7, 8, 9), (7, 7, 5, 3)),
    (((3, 3), (5, 5), (2, 2, 2, 2), (1, 1)), (2, 9, 7, 10), (17, 9, 5, 5)),
    (((4, 4), (4, 4), (0, 0, 0, 0), (1, 1)), (2, 12, 11, 9), (33, 12, 4, 4)),
    (((4, 2), (4, 4), (2, 1, 1, 3), (1, 1)), (1, 9, 7, 6), (8, 9, 4, 4)),
    (((1, 2), (1, 5), (0, 2, 0, 2), (1, 1)), (1, 8, 3, 7), (9, 8, 1, 5)),
    (((4, 4), (3, 3), (1, 1, 1, 1), (2, 2)), (2, 9, 17, 15), (17, 9, 3, 3)),
    (((5, 5), (3, 3), (0, 0, 1, 1), (2, 2)), (1, 7, 12, 21), (9, 7, 3, 3)),
    (((2, 4), (3, 3), (1, 0, 1, 1), (2, 2)), (1, 33, 7, 9), (7, 33, 3, 3)),
    (((4, 5), (3, 3), (1, 1, 1, 1), (2, 1)), (2, 5, 9, 7), (16, 5, 3, 3)),
    (((2, 2), (3, 3), (1, 1, 1, 1), (2, 2)), (1, 2, 1, 2), (3, 2, 3, 3)),
)
