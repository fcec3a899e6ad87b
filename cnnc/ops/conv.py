"""2-D convolution (cross-correlation) and its gradients, with stride, padding, dilation and groups.

The three ops are each other's derivatives, for y is linear in x and in w. The bias is an op of its
own (elementwise.Bias), which fusion brings back into the convolution's kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import ShapeError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op, Sample, Trait
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.check import expect_rank, expect_type, take_floats
from cnnc.ops.window import Window


@dataclass(frozen=True)
class _Convolution(Op):
    """The attributes the three ops share; pad = (top, left, bottom, right), pairs are (rows, columns)."""

    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def window(self, kernel: tuple[int, ...]) -> Window:
        """The sliding window, given Kh, Kw as the last two entries of a shape."""
        return Window((kernel[-2], kernel[-1]), self.stride, self.pad, self.dilation)

    def is_pointwise(self, kernel: tuple[int, ...]) -> bool:
        """Whether one tap visits every pixel, given Kh, Kw as the last two entries of a shape."""
        return kernel[-2:] == (1, 1) and self.stride == (1, 1) and not any(self.pad)

    def _result(self, x: TensorType, w: TensorType) -> TensorType:
        """Type of y from those of x [N,C,H,W] and w [O,C/groups,Kh,Kw]."""
        expect_rank("input", x, "N,C,H,W")
        expect_rank("weight", w, "O,I,Kh,Kw")
        n, c, height, width = x.shape
        o, i, kh, kw = w.shape
        if self.groups < 1 or c % self.groups or o % self.groups:
            raise ShapeError(f"{self.groups} groups do not divide {c} input and {o} output channels")
        if c != i * self.groups:
            expected = f"{i}" if self.groups == 1 else f"{self.groups} groups of {i}"
            raise ShapeError(f"input has {c} channels, the weight expects {expected}")
        return TensorType(x.dtype, (n, o, *self.window((kh, kw)).result_size(height, width)))

    def _same(self) -> tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], int]:
        return self.stride, self.pad, self.dilation, self.groups


@dataclass(frozen=True)
class Conv2d(_Convolution):
    """x [N,C,H,W], w [O,C/groups,Kh,Kw] -> y [N,O,H',W'].

    y(n,o,i,j) = sum over c,r,s of w(o,c,r,s) x(n, c, i*stride + r*dilation - pad, ...), where c runs
    over the input channels of o's group and places outside the input count as 0.
    """

    name: ClassVar[str] = "conv2d"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION, Trait.EPILOGUE})

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, w = take_floats(operands, "input", "weight")
        return (self._result(x, w),)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        x, w = operands
        window = self.window(w.shape)
        size = window.result_size(*x.shape[2:])
        padded, filters = window.padded(x), _grouped_weight(w, self.groups)
        y = np.zeros((x.shape[0], self.groups, filters.shape[1], size[0] * size[1]), x.dtype)
        for r, s, rows, columns in window.taps(size):
            y += filters[..., r, s] @ _grouped(padded[:, :, rows, columns], self.groups)
        return (y.reshape(x.shape[0], w.shape[0], *size),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        (x, w), (dy,) = operands, result_grads
        dx = Conv2dInputGrad(*self._same(), size=_last_two(x))
        dw = Conv2dWeightGrad(*self._same(), kernel=_last_two(w))
        return (emit.emit(dx, dy, w), emit.emit(dw, dy, x))

    def macs(self, *operands: TensorType) -> int:
        x, w = operands
        n, _, height, width = self._result(x, w).shape
        return n * height * width * w.size

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for common, x, w in _CASES:
            yield Sample(cls(*common), (f32(*x), f32(*w)))


@dataclass(frozen=True)
class Conv2dInputGrad(_Convolution):
    """dy [N,O,H',W'], w [O,C/groups,Kh,Kw] -> dx [N,C,H,W]; `size` = (H, W) is the input's.

    Attributes are those of the Conv2d it belongs to.
    """

    name: ClassVar[str] = "conv2d_input_grad"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION, Trait.EPILOGUE})
    size: tuple[int, int] = (1, 1)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dy, w = take_floats(operands, "result gradient", "weight")
        expect_rank("result gradient", dy, "N,O,H,W")
        expect_rank("weight", w, "O,I,Kh,Kw")
        dx = TensorType(dy.dtype, (dy.shape[0], w.shape[1] * self.groups, *self.size))
        expect_type("result gradient", dy, self._result(dx, w), f"the input {dx} under the weight {w}")
        return (dx,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, w = operands
        window = self.window(w.shape)
        filters, sources = _grouped_weight(w, self.groups), _grouped(dy, self.groups)
        padded = window.padded(np.zeros((dy.shape[0], w.shape[1] * self.groups, *self.size), dy.dtype))
        for r, s, rows, columns in window.taps(dy.shape):
            part = filters[..., r, s].swapaxes(-1, -2) @ sources
            padded[:, :, rows, columns] += part.reshape(dy.shape[0], -1, *dy.shape[2:])
        return (window.cropped(padded),)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        (dy, w), (g,) = operands, result_grads
        dw = Conv2dWeightGrad(*self._same(), kernel=_last_two(w))
        return (emit.emit(Conv2d(*self._same()), g, w), emit.emit(dw, dy, g))

    def macs(self, *operands: TensorType) -> int:
        dy, w = operands
        return dy.shape[0] * dy.shape[2] * dy.shape[3] * w.size

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for common, x, w in _CASES:
            (dy,) = Conv2d(*common).infer(f32(*x), f32(*w))
            yield Sample(cls(*common, size=(x[2], x[3])), (dy, f32(*w)))


@dataclass(frozen=True)
class Conv2dWeightGrad(_Convolution):
    """dy [N,O,H',W'], x [N,C,H,W] -> dw [O,C/groups,Kh,Kw]; `kernel` = (Kh, Kw).

    Attributes are those of the Conv2d it belongs to.
    """

    name: ClassVar[str] = "conv2d_weight_grad"
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.CONTRACTION, Trait.UPDATE})
    kernel: tuple[int, int] = (1, 1)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        dy, x = take_floats(operands, "result gradient", "input")
        expect_rank("result gradient", dy, "N,O,H,W")
        expect_rank("input", x, "N,C,H,W")
        dw = TensorType(dy.dtype, (dy.shape[1], x.shape[1] // max(self.groups, 1), *self.kernel))
        expect_type("result gradient", dy, self._result(x, dw), f"the input {x} under the weight {dw}")
        return (dw,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        dy, x = operands
        window = self.window(self.kernel)
        padded, sources = window.padded(x), _grouped(dy, self.groups)
        dw = np.zeros((dy.shape[1], x.shape[1] // self.groups, *self.kernel), dy.dtype)
        for r, s, rows, columns in window.taps(dy.shape):
            visited = _grouped(padded[:, :, rows, columns], self.groups)
            products = (sources @ visited.swapaxes(-1, -2)).sum(axis=0)
            dw[:, :, r, s] = products.reshape(dw.shape[:2])
        return (dw,)

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        (dy, x), (g,) = operands, result_grads
        dx = Conv2dInputGrad(*self._same(), size=_last_two(x))
        return (emit.emit(Conv2d(*self._same()), x, g), emit.emit(dx, dy, g))

    def macs(self, *operands: TensorType) -> int:
        dy, x = operands
        return dy.size * (x.shape[1] // self.groups) * self.kernel[0] * self.kernel[1]

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for common, x, w in _CASES:
            (dy,) = Conv2d(*common).infer(f32(*x), f32(*w))
            yield Sample(cls(*common, kernel=(w[2], w[3])), (dy, f32(*x)))


_Common = tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], int]

_CASES: tuple[tuple[_Common, tuple[int, ...], tuple[int, ...]], ...] = (
    # (stride, pad, dilation, groups), x, w
    (((1, 1), (0, 0, 0, 0), (1, 1), 1), (2, 1, 9, 9), (6, 1, 5, 5)),
    (((1, 1), (1, 1, 1, 1), (1, 1), 1), (1, 3, 7, 17), (17, 3, 3, 3)),
    (((2, 2), (1, 1, 1, 1), (1, 1), 1), (2, 17, 9, 7), (9, 17, 3, 3)),
    (((2, 1), (0, 2, 1, 3), (1, 1), 1), (1, 3, 7, 9), (5, 3, 3, 4)),
    (((1, 1), (2, 2, 2, 2), (2, 2), 1), (1, 7, 9, 9), (7, 7, 3, 3)),
    (((2, 3), (1, 0, 2, 1), (3, 2), 1), (3, 2, 17, 9), (1, 2, 3, 2)),
    (((1, 1), (0, 0, 0, 0), (1, 1), 1), (1, 33, 5, 3), (17, 33, 1, 1)),
    (((3, 3), (0, 0, 0, 0), (1, 1), 1), (2, 5, 7, 7), (3, 5, 1, 1)),
    (((1, 1), (1, 1, 1, 1), (1, 1), 3), (2, 9, 5, 7), (6, 3, 3, 3)),
    (((2, 2), (2, 2, 1, 1), (1, 1), 7), (1, 7, 9, 9), (7, 1, 3, 3)),
    (((1, 1), (0, 0, 0, 0), (1, 1), 1), (1, 1, 1, 1), (1, 1, 1, 1)),
    (((1, 1), (4, 4, 4, 4), (1, 1), 1), (1, 2, 1, 3), (3, 2, 5, 5)),
)


def _last_two(value: Value) -> tuple[int, int]:
    *_, height, width = value.type.shape
    return height, width


def _grouped(x: Array, groups: int) -> Array:
    """[N,C,H,W] -> [N,groups,C/groups,H*W]."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, -1)


def _grouped_weight(w: Array, groups: int) -> Array:
    """[O,I,Kh,Kw] -> [groups,O/groups,I,Kh,Kw]."""
    return w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
