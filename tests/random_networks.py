"""hypothesis strategy: random networks with a loss, from makers of layers, and random arrays for them.

A network grows from one image. A layer reads any map that is there, so networks branch; concatenations, sums
and products join branches. What nobody read at the end is pooled, joined and classified, so that every layer
takes part in the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from hypothesis import strategies as st

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Value
from cnnc.ir.printer import print_graph
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.concat import Concat, Slice
from cnnc.ops.conv import Conv2d, Conv2dInputGrad
from cnnc.ops.dense import Dense
from cnnc.ops.dropout import Dropout
from cnnc.ops.elementwise import Add, Bias, Map, Mul, Relu, Relu6, Sigmoid, Sub, Tanh
from cnnc.ops.loss import CorrectCount, SoftmaxCrossEntropy, SquaredError
from cnnc.ops.norm import BatchNorm
from cnnc.ops.pool import MaxPool2d, MeanPool2d
from cnnc.ops.position_bias import PositionBias
from cnnc.ops.shape import Flatten
from cnnc.ops.softmax import LogSoftmax, Softmax
from cnnc.ops.window import Window
from tests.strategies import Growth

BATCHES = (1, 2, 7)
CHANNELS = (1, 2, 7, 17, 31)
WIDE = (17, 31)
HALVED = (8, 16, 40)
"""What can be cut into halves of whole short vectors."""

MAPS = (1, 3, 7, 8, 9, 33)
KERNELS = ((3, 3), (1, 1), (1, 3), (3, 1), (5, 5), (2, 3))
STEPS = ((1, 1), (1, 1), (2, 2), (2, 1), (3, 2))
DILATIONS = ((1, 1), (1, 1), (1, 1), (2, 2), (1, 3))
POOLED = ((2, 2), (3, 3), (3, 2), (1, 5))
ACTIVATIONS = (Relu(), Tanh(), Sigmoid(), Relu6(), Map("a * sigmoid(a)"), Map("max(a, 0.1 * a)"))
SUMS = (Add(), Sub(), Mul(), Map("max(a, b) - 0.5"))

CLASSES = 5
LARGEST_MAP = 40
SMALLEST_SAMPLE = 8
"""Values of a channel that are normalized: of fewer the variance may be all but zero, and hide rounding."""

_Pair = tuple[int, int]
_Pads = tuple[int, int, int, int]
Layer = Callable[[Growth, Value], None]


@dataclass(frozen=True, repr=False)
class RandomNetwork:
    """A network's forward graph and the same with its loss, both at one batch; a failure shows the text."""

    forward: Graph
    loss: Graph

    @property
    def batch(self) -> int:
        return self.forward.inputs[0].type.shape[0]

    def __repr__(self) -> str:
        return f"\n{print_graph(self.loss)}"


@st.composite
def networks(
    draw: st.DrawFn, suits: Sequence[tuple[_Pair, _Pair]] = (), max_layers: int = 5
) -> RandomNetwork:
    """A random network; with `suits` one of its layers is a plain convolution of one of these kernels and
    strides."""
    growth = Growth(draw, GraphBuilder("random"))
    sizes = (draw(st.sampled_from(s)) for s in (BATCHES, CHANNELS, MAPS, MAPS))
    image = growth.builder.input("image", f32(*sizes))
    growth.readable.append(image)
    plain = draw(st.integers(0, max_layers - 1)) if suits else None
    for number in range(draw(st.integers(1 if plain is None else plain + 1, max_layers))):
        x = growth.pick(rank=4)
        assert x is not None, "the image is readable"
        if number == plain:
            _plain_convolution(growth, x, *draw(st.sampled_from(suits)))
        else:
            draw(st.sampled_from(LAYERS))(growth, x)
    result = _joined(growth)
    return RandomNetwork(growth.builder.build([result]), _with_loss(growth, result))


def arrays(values: Iterable[Value], seed: int) -> dict[str, Array]:
    """Normal numbers, weights scaled by what they are summed over, so that no layer's results grow or
    vanish; positive variances; labels 0..CLASSES-1."""
    rng = np.random.default_rng(seed)
    return {v.name: _array(v.name.partition(".")[0], v.type, rng) for v in values}


def _array(kind: str, type: TensorType, rng: np.random.Generator) -> Array:
    if type.dtype == "i32":
        return rng.integers(0, CLASSES, type.shape, np.int32)
    noise = np.asarray(rng.standard_normal(type.shape), np.float32)
    scale = 1 / math.sqrt(math.prod(type.shape[1:])) if kind == "weight" else 1.0
    return np.exp(0.2 * noise) if kind in ("scale", "variance") else noise * np.float32(scale)


def _param(growth: Growth, kind: str, *shape: int) -> Value:
    """A param whose name says what it is, for `arrays`."""
    growth.params.append(growth.builder.param(f"{kind}.{len(growth.params)}", f32(*shape)))
    return growth.params[-1]


def _finished(growth: Growth, y: Value) -> None:
    """Perhaps a bias, a normalization, an activation behind a contraction."""
    if growth.draw(st.booleans()):
        y = growth.emit(Bias(), y, _param(growth, "bias", y.type.shape[1]))
    if growth.draw(st.integers(0, 2)) == 0:
        y = _normalized(growth, y)
    if growth.draw(st.booleans()):
        growth.emit(growth.draw(st.sampled_from(ACTIVATIONS)), y)


def _normalized(growth: Growth, x: Value) -> Value:
    """With an activation, for nothing flows back from the mean of normalized values but rounding."""
    n, channels, *size = x.type.shape
    if n * math.prod(size) < SMALLEST_SAMPLE:
        return x
    stem = ("scale", "bias", "mean", "variance")
    params = [_param(growth, kind, channels) for kind in stem]
    y = growth.emit(BatchNorm(growth.draw(st.sampled_from((1e-5, 1e-2)))), x, *params)
    return growth.emit(growth.draw(st.sampled_from(ACTIVATIONS)), y)


def _plain_convolution(growth: Growth, x: Value, kernel: _Pair, stride: _Pair) -> None:
    """One group, no dilation, many channels, of one tap an even number: what fast algorithms are for."""
    widths = HALVED if kernel == (1, 1) else WIDE
    wide = growth.draw(st.sampled_from(widths))
    if x.type.shape[1] < WIDE[0] or widths == HALVED:
        weight = _param(growth, "weight", wide, x.type.shape[1], 1, 1)
        x = growth.emit(growth.draw(st.sampled_from(ACTIVATIONS)), growth.emit(Conv2d(), x, weight))
    pad = (0, 0, 0, 0) if kernel == (1, 1) else _padding(growth, x, Window(kernel, stride, (0, 0, 0, 0)))
    maps = growth.draw(st.sampled_from(widths))
    y = growth.emit(Conv2d(stride, pad), x, _param(growth, "weight", maps, x.type.shape[1], *kernel))
    _finished(growth, y)


def _padding(growth: Growth, x: Value, window: Window) -> _Pads:
    """Random, symmetric as a rule, and large enough for the window to fit."""
    if growth.draw(st.booleans()):
        pads = [d * (k - 1) // 2 for d, k in zip(window.dilation, window.kernel, strict=True)] * 2
    else:
        pads = [growth.draw(st.integers(0, k)) for k in window.kernel * 2]
    for axis, size in enumerate(x.type.shape[2:]):
        reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
        pads[axis + 2] += max(0, reach - size - pads[axis] - pads[axis + 2])
    top, left, bottom, right = pads
    return top, left, bottom, right


def _groups(growth: Growth, channels: int, kind: str) -> tuple[int, int]:
    """The number of groups and of output maps."""
    maps = growth.draw(st.sampled_from(CHANNELS))
    if kind == "depthwise":
        return channels, channels * growth.draw(st.sampled_from((1, 1, 2)))
    if kind == "grouped":
        groups = growth.draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
        return groups, groups * max(1, maps // groups)
    return 1, maps


def _convolution(growth: Growth, x: Value, kind: str) -> None:
    kernel, stride, dilation = (growth.draw(st.sampled_from(s)) for s in (KERNELS, STEPS, DILATIONS))
    groups, maps = _groups(growth, x.type.shape[1], kind)
    pad = _padding(growth, x, Window(kernel, stride, (0, 0, 0, 0), dilation))
    weight = _param(growth, "weight", maps, x.type.shape[1] // groups, *kernel)
    _finished(growth, growth.emit(Conv2d(stride, pad, dilation, groups), x, weight))


def _transposed(growth: Growth, x: Value) -> None:
    """The gradient of a convolution by its input, as a layer."""
    kernel, stride, dilation = (growth.draw(st.sampled_from(s)) for s in (KERNELS, STEPS, DILATIONS))
    groups, maps = _groups(growth, x.type.shape[1], growth.draw(st.sampled_from(("plain", "grouped"))))
    pad = tuple(growth.draw(st.integers(0, k // 2)) for k in kernel * 2)
    extra = [growth.draw(st.integers(0, s - 1)) for s in stride]
    size = [
        (n - 1) * stride[axis]
        + dilation[axis] * (kernel[axis] - 1)
        + 1
        - pad[axis]
        - pad[axis + 2]
        + extra[axis]
        for axis, n in enumerate(x.type.shape[2:])
    ]
    if min(size) < 1 or max(size) > LARGEST_MAP:
        return
    weight = _param(growth, "weight", x.type.shape[1], maps // groups, *kernel)
    op = Conv2dInputGrad(stride, (pad[0], pad[1], pad[2], pad[3]), dilation, groups, (size[0], size[1]))
    _finished(growth, growth.emit(op, x, weight))


def _pool(growth: Growth, x: Value, kind: type[MaxPool2d] | type[MeanPool2d]) -> None:
    """A window that may stick out below and on the right, as sizes rounded up have it."""
    kernel = growth.draw(st.sampled_from(POOLED))
    stride = growth.draw(st.sampled_from((kernel, (1, 1), (2, 2), (2, 1))))
    pad = tuple(growth.draw(st.integers(0, k - 1)) for k in kernel * 2)
    fits = all(
        n + pad[axis] + pad[axis + 2] >= kernel[axis] and pad[axis + 2] < n + pad[axis]
        for axis, n in enumerate(x.type.shape[2:])
    )
    if not fits:
        return
    pads: _Pads = (pad[0], pad[1], pad[2], pad[3])
    if kind is MaxPool2d:
        growth.emit(MaxPool2d(kernel, stride, pads), x)
        return
    uncounted = growth.draw(st.sampled_from(((0, 0, 0, 0), pads, (0, 0, pads[2], pads[3]))))
    growth.emit(MeanPool2d(kernel, stride, pads, uncounted), x)


def _activation(growth: Growth, x: Value) -> None:
    growth.emit(growth.draw(st.sampled_from(ACTIVATIONS)), x)


def _sum(growth: Growth, x: Value) -> None:
    """With another map of the same type: a residual connection."""
    alike = [v for v in growth.readable if v.type == x.type]
    growth.emit(growth.draw(st.sampled_from(SUMS)), x, growth.draw(st.sampled_from(alike)))


def _residual(growth: Growth, x: Value) -> None:
    """A convolution around which its input goes."""
    maps = x.type.shape[1]
    pad = (1, 1, 1, 1)
    y = growth.emit(Conv2d(pad=pad), x, _param(growth, "weight", maps, maps, 3, 3))
    y = growth.emit(Bias(), _normalized(growth, y), _param(growth, "bias", maps))
    growth.emit(growth.draw(st.sampled_from(ACTIVATIONS)), growth.emit(Add(), y, x))


def _concat(growth: Growth, x: Value) -> None:
    n, _, *size = x.type.shape
    alike = [v for v in growth.readable if v.type.rank == 4 and (n, *size) == _but_channels(v)]
    growth.emit(Concat(), x, *growth.draw(st.lists(st.sampled_from(alike), min_size=1, max_size=3)))


def _slice(growth: Growth, x: Value) -> None:
    start = growth.draw(st.integers(0, x.type.shape[1] - 1))
    growth.emit(Slice(1, start, growth.draw(st.integers(1, x.type.shape[1] - start))), x)


def _but_channels(value: Value) -> tuple[int, ...]:
    n, _, *size = value.type.shape
    return n, *size


def _norm(growth: Growth, x: Value) -> None:
    _normalized(growth, x)


def _position_bias(growth: Growth, x: Value) -> None:
    growth.emit(PositionBias(), x, _param(growth, "bias", *x.type.shape[1:]))


def _softmax(growth: Growth, x: Value) -> None:
    growth.emit(growth.draw(st.sampled_from((Softmax(), LogSoftmax()))), x)


def _dropout(growth: Growth, x: Value) -> None:
    growth.emit(Dropout(0.5, 1), x)


def _dense(growth: Growth, x: Value) -> None:
    flat = growth.emit(Flatten(), x)
    weight = _param(growth, "weight", growth.draw(st.sampled_from(CHANNELS)), flat.type.shape[1])
    _finished(growth, growth.emit(Dense(), flat, weight))


LAYERS: tuple[Layer, ...] = (
    partial(_convolution, kind="plain"),
    partial(_convolution, kind="plain"),
    partial(_convolution, kind="grouped"),
    partial(_convolution, kind="depthwise"),
    _transposed,
    _residual,
    partial(_pool, kind=MaxPool2d),
    partial(_pool, kind=MeanPool2d),
    _activation,
    _sum,
    _concat,
    _concat,
    _slice,
    _norm,
    _position_bias,
    _softmax,
    _dropout,
    _dense,
)


def _joined(growth: Growth) -> Value:
    """One row per image of everything that nobody read so far."""
    built = growth.builder.build([])
    ends = [v for v in growth.readable if not built.users[v]]
    flat = [_flat(growth, v) for v in ends]
    whole = growth.emit(Concat(), *flat) if len(flat) > 1 else flat[0]
    weight = _param(growth, "weight", CLASSES, whole.type.shape[1])
    return growth.emit(Bias(), growth.emit(Dense(), whole, weight), _param(growth, "bias", CLASSES))


def _flat(growth: Growth, x: Value) -> Value:
    if x.type.rank == 2:
        return x
    kind = growth.draw(st.sampled_from((None, MeanPool2d, MaxPool2d)))
    if kind is not None:
        height, width = x.type.shape[2:]
        x = growth.emit(kind((height, width), (height, width)), x)
    return growth.emit(Flatten(), x)


def _with_loss(growth: Growth, result: Value) -> Graph:
    n = result.type.shape[0]
    if growth.draw(st.booleans()):
        labels = growth.builder.input("labels", TensorType("i32", (n,)))
        outputs = [growth.builder.emit(op, result, labels) for op in (SoftmaxCrossEntropy(), CorrectCount())]
    else:
        target = growth.builder.input("target", result.type)
        outputs = [growth.builder.emit(SquaredError(), result, target)]
    return growth.builder.build(outputs)
