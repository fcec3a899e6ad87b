"""hypothesis strategies: random kernels that pass check_kernel, and arrays to run them on.

Loops are short and buffers small, so that a kernel can be enumerated; indices are mostly but not
always in bounds, and mostly but not always follow the parallel loops, so that proofs accept some
kernels and refuse others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Tile, Vec
from cnnc.backend.kernel.ir import FUNCTIONS, Access, Affine, Kernel, affine
from cnnc.ir.types import DTYPES, Array

LANES = (1, 2, 4)
LITERALS = st.one_of(
    st.sampled_from((0.0, -0.0, 1.0, 1e-5, 1.5e20, float("inf"))), st.floats(-9, 9, width=32)
)


@dataclass(frozen=True)
class _Scope:
    """What the next statement may use, and the dimension-0 base that keeps iterations apart."""

    k: KernelBuilder
    buffers: tuple[BufferHandle, ...]
    variables: tuple[Affine, ...]
    base: Affine
    values: tuple[Vec, ...] = ()
    tiles: tuple[tuple[Tile, tuple[int, ...]], ...] = ()
    depth: int = 0


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    """A kernel of up to three parallel loops around a block of statements and inner loops."""
    k = KernelBuilder("random")
    buffers = (
        k.buffer("x", (12, 9), Access.READ, pitch=draw(st.sampled_from((0, 9, 14)))),
        k.buffer("labels", (14,), Access.READ, "i32"),
        k.buffer("total", (), Access.READWRITE),
        k.buffer("state", (10, 8), Access.READWRITE, pitch=draw(st.sampled_from((0, 11)))),
        k.buffer("y", (16, 10), draw(st.sampled_from((Access.WRITE, Access.STREAM)))),
    )
    images = draw(st.integers(-1, 2))
    _parallel(draw, _Scope(k, buffers, (), affine(0)), draw(st.integers(0, 3)), images)
    return k.build()


def _parallel(draw: st.DrawFn, scope: _Scope, loops: int, images: int) -> None:
    """That many parallel loops, the one of number `images`, counted from inside, over images."""
    if loops == 0:
        _block(draw, scope)
        return
    step, marked = (1, draw(st.integers(1, 3))) if images == loops - 1 else (draw(st.integers(1, 2)), 0)
    with scope.k.loop("p", 0, draw(st.integers(1, 4)), step, parallel=True, images=marked) as p:
        inner = replace(scope, variables=(*scope.variables, p), base=scope.base * 3 + p)
        _parallel(draw, inner, loops - 1, images)


def _block(draw: st.DrawFn, scope: _Scope) -> None:
    for _ in range(draw(st.integers(2, 4))):
        kind = draw(st.sampled_from((_value, _store, _store, _declare, _assign, _prefetch, _loop)))
        scope = kind(draw, scope)


def _loop(draw: st.DrawFn, scope: _Scope) -> _Scope:
    """A loop whose bounds are constants or clamped by an outer variable."""
    if scope.depth == 2:
        return scope
    outer = draw(st.sampled_from((*scope.variables, affine(1))))
    start, stop = draw(st.integers(-1, 2)), draw(st.integers(2, 4))
    starts = draw(st.sampled_from(((start,), (start, 1 - outer), (2 * outer,))))
    stops = draw(st.sampled_from(((stop,), (stop, 5 - outer), (2 * outer + 2, stop))))
    with scope.k.loop("i", starts, stops, draw(st.integers(1, 3))) as i:
        _block(draw, replace(scope, variables=(*scope.variables, i), depth=scope.depth + 1))
    return scope


def _value(draw: st.DrawFn, scope: _Scope) -> _Scope:
    return replace(scope, values=(*scope.values, _instruction(draw, scope)))


def _instruction(draw: st.DrawFn, scope: _Scope) -> Vec:
    k, lanes = scope.k, draw(st.sampled_from(LANES))
    kind = draw(st.sampled_from(("load", "splat", "index", "reduce", "broadcast", "uniform", *FUNCTIONS)))
    if kind in ("load", "splat"):
        buffer = draw(st.sampled_from(scope.buffers[:4]))
        place = _place(draw, scope, buffer)
        count = draw(st.integers(1, lanes if place else 1))
        return buffer.splat(place, lanes) if kind == "splat" else buffer.load(place, lanes, count)
    if kind == "index":
        return k.index(_affine(draw, scope), lanes)
    if kind == "uniform":
        counter = k.constant(draw(LITERALS), 1)
        return k.uniform(draw(st.integers(0, 2**32 - 1)), counter, _affine(draw, scope), lanes)
    if kind == "reduce":
        return k.reduce(draw(st.sampled_from(("add", "max", "min"))), _operand(draw, scope, lanes))
    if kind == "broadcast":
        return k.broadcast(_operand(draw, scope, 1), lanes)
    first, *others = (_operand(draw, scope, lanes) for _ in range(FUNCTIONS[kind]))
    return k.compute(kind, first, *others)


def _operand(draw: st.DrawFn, scope: _Scope, lanes: int) -> Vec:
    candidates = [value for value in scope.values if value.lanes == lanes]
    candidates += [tile[_element(draw, shape)] for tile, shape in scope.tiles if tile.lanes == lanes]
    literal = scope.k.constant(draw(LITERALS), lanes)
    return draw(st.sampled_from((*candidates, literal)))


def _store(draw: st.DrawFn, scope: _Scope) -> _Scope:
    buffer = draw(st.sampled_from(scope.buffers[3:] if scope.variables else scope.buffers[2:]))
    value = _operand(draw, scope, draw(st.sampled_from(LANES)))
    place = _place(draw, scope, buffer)
    buffer.store(place, value, draw(st.integers(1, value.lanes if place else 1)))
    return scope


def _prefetch(draw: st.DrawFn, scope: _Scope) -> _Scope:
    buffer = draw(st.sampled_from(scope.buffers))
    buffer.prefetch(_place(draw, scope, buffer))
    return scope


def _declare(draw: st.DrawFn, scope: _Scope) -> _Scope:
    shape = draw(st.sampled_from(((), (2,), (2, 3))))
    tile = scope.k.register("acc", draw(st.sampled_from(LANES)), shape, draw(LITERALS))
    return replace(scope, tiles=(*scope.tiles, (tile, shape)))


def _assign(draw: st.DrawFn, scope: _Scope) -> _Scope:
    if scope.tiles:
        tile, shape = draw(st.sampled_from(scope.tiles))
        target = _element(draw, shape)
        tile[target] = scope.k.compute("add", _operand(draw, scope, tile.lanes), 1.0)
    return scope


def _element(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(draw(st.integers(0, extent - 1)) for extent in shape)


def _place(draw: st.DrawFn, scope: _Scope, handle: BufferHandle) -> tuple[Affine, ...]:
    rank = len(handle.buffer.shape)
    follows = draw(st.integers(0, 3)) > 0
    first = scope.base if follows else _affine(draw, scope)
    return (first, *(_affine(draw, scope) for _ in range(rank - 1)))[:rank]


def _affine(draw: st.DrawFn, scope: _Scope) -> Affine:
    value = affine(draw(st.integers(0, 3)))
    for variable in scope.variables:
        value = value + variable * draw(st.sampled_from((0, 0, 1, 1, 2, -1)))
    return value


def arrays(kernel: Kernel, seed: int = 0) -> dict[str, Array]:
    """Random arrays for a kernel's buffers."""
    rng = np.random.default_rng(seed)
    shapes = {buffer.name: (buffer.shape, DTYPES[buffer.dtype]) for buffer in kernel.arguments}
    return {
        name: np.asarray(rng.normal(0, 3, shape)).astype(dtype) for name, (shape, dtype) in shapes.items()
    }
