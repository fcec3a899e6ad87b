"""hypothesis strategies: random verified graphs of real ops, for the properties of every level.

A graph grows from one image by random steps. A step takes values that are there and emits one or
more nodes; steps that do not fit what they drew emit nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from hypothesis import strategies as st

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Value
from cnnc.ir.location import UNKNOWN, Location
from cnnc.ir.op import Op
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.concat import Concat, Slice
from cnnc.ops.conv import Conv2d
from cnnc.ops.dense import Dense
from cnnc.ops.elementwise import Add, Bias, Map, Mul, Relu, Sigmoid, Sub, Tanh
from cnnc.ops.fused import Fused
from cnnc.ops.pool import MaxPool2d, MeanPool2d
from cnnc.ops.shape import Constant, Flatten

UNARY = (Relu(), Tanh(), Sigmoid(), Map("a * sigmoid(a)"), Map("max(a, 0.1 * a)"))
BINARY = (Add(), Sub(), Mul(), Map("max(a, b) - 0.5"))


@dataclass
class Growth:
    """A graph under construction: its builder, what may be read, and the source of choices."""

    draw: st.DrawFn
    builder: GraphBuilder
    readable: list[Value] = field(default_factory=list)
    params: list[Value] = field(default_factory=list)

    def pick(self, rank: int | None = None) -> Value | None:
        """A readable value, of the given rank if one is given; None if there is none."""
        fitting = [v for v in self.readable if rank in (None, v.type.rank)]
        return self.draw(st.sampled_from(fitting)) if fitting else None

    def param(self, type: TensorType) -> Value:
        """A new param."""
        self.params.append(self.builder.param(self.builder.fresh("p"), type))
        return self.params[-1]

    def emit(self, op: Op, *operands: Value) -> Value:
        """A new single-result node, whose result becomes readable."""
        self.readable += self.builder.emit_all(op, *operands)
        return self.readable[-1]


def names() -> st.SearchStrategy[str]:
    """Names that stand bare and names that need quotes."""
    return st.one_of(
        st.from_regex(r"[a-z0-9_]{1,4}(\.[a-z]{1,3})?", fullmatch=True), st.text(min_size=1, max_size=4)
    )


def locations() -> st.SearchStrategy[Location]:
    return st.one_of(st.just(UNKNOWN), st.builds(Location, st.text(max_size=4), st.integers(0, 999)))


@st.composite
def graphs(draw: st.DrawFn, max_steps: int = 8, regions: bool = True) -> Graph:
    """A verified graph: a DAG over one image, with params, updates and, unless declined, regions."""
    steps = STEPS if regions else tuple(step for step in STEPS if step is not _region)
    growth = Growth(draw, GraphBuilder(draw(names())))
    sizes = [draw(st.integers(1, high)) for high in (2, 4, 6, 6)]
    growth.readable.append(growth.builder.input(draw(names()), f32(*sizes)))
    for _ in range(draw(st.integers(1, max_steps))):
        step = draw(st.sampled_from(steps))
        with growth.builder.at(draw(names()), draw(locations())):
            step(growth)
    outputs = draw(st.lists(st.sampled_from(growth.readable), min_size=1, max_size=3, unique=True))
    return growth.builder.build(outputs, _updates(growth))


def feeds(graph: Graph, seed: int) -> Mapping[str, Array]:
    """Normally distributed float32 arrays for the inputs and params of a graph without labels."""
    rng = np.random.default_rng(seed)
    values = (*graph.inputs, *graph.params)
    return {v.name: rng.standard_normal(v.type.shape).astype(v.type.numpy) for v in values}


def _elementwise(growth: Growth) -> None:
    a = growth.pick()
    assert a is not None, "the image is readable"
    if growth.draw(st.booleans()):
        growth.emit(growth.draw(st.sampled_from(UNARY)), a)
        return
    alike = [v for v in growth.readable if v.type == a.type]
    growth.emit(growth.draw(st.sampled_from(BINARY)), a, growth.draw(st.sampled_from(alike)))


def _bias(growth: Growth) -> None:
    if (x := growth.pick(rank=4)) is not None:
        growth.emit(Bias(), x, growth.param(f32(x.type.shape[1])))


def _scaled(growth: Growth) -> None:
    if (x := growth.pick(rank=4)) is not None:
        factor = growth.emit(Constant((growth.draw(st.floats(-2, 2, width=32)),)))
        growth.emit(Mul(), x, factor)


def _convolution(growth: Growth) -> None:
    x = growth.pick(rank=4)
    if x is None:
        return
    stride = growth.draw(st.sampled_from([(1, 1), (2, 1), (2, 2)]))
    kernel = growth.draw(st.sampled_from([(1, 1), (3, 3), (2, 3)]))
    weight = growth.param(f32(growth.draw(st.integers(1, 4)), x.type.shape[1], *kernel))
    growth.emit(Conv2d(stride=stride, pad=(1, 1, 1, 1)), x, weight)


def _join(growth: Growth) -> None:
    """A concatenation along channels, of some value more than once perhaps, nested perhaps."""
    x = growth.pick(rank=4)
    if x is None:
        return
    n, _, *size = x.type.shape
    alike = [
        v for v in growth.readable if v.type.rank == 4 and (v.type.shape[0], *v.type.shape[2:]) == (n, *size)
    ]
    growth.emit(Concat(), x, *growth.draw(st.lists(st.sampled_from(alike), min_size=1, max_size=3)))


def _slice(growth: Growth) -> None:
    if (x := growth.pick(rank=4)) is not None:
        start = growth.draw(st.integers(0, x.type.shape[1] - 1))
        growth.emit(Slice(1, start, growth.draw(st.integers(1, x.type.shape[1] - start))), x)


def _pool(growth: Growth, kind: type[MaxPool2d] | type[MeanPool2d]) -> None:
    if (x := growth.pick(rank=4)) is not None:
        growth.emit(kind(kernel=(2, 2), stride=(1, 2), pad=(0, 0, 1, 1)), x)


def _dense(growth: Growth) -> None:
    if (x := growth.pick(rank=4)) is not None:
        flat = growth.emit(Flatten(), x)
        growth.emit(Dense(), flat, growth.param(f32(3, flat.type.shape[1])))


def _region(growth: Growth) -> None:
    """A fused node with two results."""
    x = growth.pick()
    assert x is not None, "the image is readable"
    body = GraphBuilder("body")
    a = body.input("x", x.type)
    with body.at(growth.draw(names()), growth.draw(locations())):
        anchor = body.emit(growth.draw(st.sampled_from(UNARY)), a)
        last = body.emit(growth.draw(st.sampled_from(BINARY)), anchor, a)
    growth.readable += growth.builder.emit_all(Fused(body.build([last, anchor])), x)


def _updates(growth: Growth) -> list[tuple[Value, Value]]:
    """Some params scaled."""
    chosen = [p for p in growth.params if growth.draw(st.booleans())]
    return [(p, growth.builder.emit(Map("a * 0.9"), p)) for p in chosen]


STEPS: tuple[Callable[[Growth], None], ...] = (
    _elementwise,
    _bias,
    _scaled,
    _convolution,
    partial(_pool, kind=MaxPool2d),
    partial(_pool, kind=MeanPool2d),
    _join,
    _slice,
    _dense,
    _region,
)
