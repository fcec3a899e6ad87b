"""Elementwise ops, alone or in a region of nothing else, over memory of any layout.

All full operands and all results lie in memory in one order, so without channel operands the kernel
need not know their shape: it runs over flat memory. A padded tail is computed with and stays harmless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.expressions import emit_expression
from cnnc.backend.kernels.loops import flat_vectors, nest, vectors
from cnnc.backend.kernels.region import Region
from cnnc.backend.kernels.site import Arguments, Site, Tensor, declare
from cnnc.errors import UnsupportedError
from cnnc.ir.graph import Graph, Value
from cnnc.ops.elementwise import LETTERS, Elementwise

Load = Callable[[int], Vec]
"""The vector of the site's operand of that number."""


def elementwise(site: Site) -> Kernel:
    """Every result of an elementwise op or region; raises UnsupportedError where orders differ."""
    region, rank = Region(site), site.results[0].type.rank
    for tensor in (*site.operands, *site.results):
        if tensor.type.rank == rank and tensor.order != site.results[0].order:
            raise UnsupportedError(
                f"{region.anchor.name}: {tensor.layout} and {site.results[0].layout} in one kernel"
            )
    k = KernelBuilder(region.anchor.name)
    if not any(0 < tensor.type.rank < rank for tensor in site.operands):
        _flat(k, site, region.body)
    else:
        _with_channels(k, site, region.body)
    return k.build()


def _flat(k: KernelBuilder, site: Site, body: Graph) -> None:
    """One loop over all elements; scalar operands are splat."""
    full = site.results[0]
    lanes = site.lanes(full.size)
    arguments = declare(k, site, lambda t: (t.size,) if t.type.rank == full.type.rank else ())

    def tile(start: Affine, count: int) -> None:
        def load(number: int) -> Vec:
            handle = arguments.operands[number]
            return handle.load((start,), lanes, count) if handle.buffer.shape else handle.splat((), lanes)

        _store(arguments, _evaluate(k, body, load, lanes), (start,), count)

    flat_vectors(k, full.size, lanes, tile)


def _with_channels(k: KernelBuilder, site: Site, body: Graph) -> None:
    """Memory as [before the channel axis, channels, behind it]; whichever is innermost makes vectors."""
    full = site.results[0]
    if full.layout.blocked_axis == 1:
        raise UnsupportedError(f"{body.nodes[0].op.name}: a channel operand for blocked channels")
    dims, axis = full.physical, full.layout.axes.index(1)
    outer, channels, inner = math.prod(dims[:axis]), dims[axis], math.prod(dims[axis + 1 :])
    if inner == 1:
        lead = math.prod(dims[: max(1, axis - 1)])
        _channels_inside(k, site, body, (lead, outer // lead, channels))
    else:
        _channels_outside(k, site, body, (outer, channels, inner))


def _channels_inside(k: KernelBuilder, site: Site, body: Graph, shape: tuple[int, int, int]) -> None:
    """Memory as [lead, rows, C], vectors along C: a vector of channel values serves every row."""
    lead, rows, channels = shape
    lanes = site.lanes(channels)
    arguments = declare(k, site, _view(site, shape))
    with k.loop("i", 0, lead, parallel=True) as i, k.loop("row", 0, rows) as row:

        def tile(start: Affine, count: int) -> None:
            def load(number: int) -> Vec:
                handle = arguments.operands[number]
                place = (i, row, start)[3 - len(handle.buffer.shape) :]
                return handle.load(place, lanes, count) if place else handle.splat((), lanes)

            _store(arguments, _evaluate(k, body, load, lanes), (i, row, start), count)

        vectors(k, channels, lanes, tile)


def _channels_outside(k: KernelBuilder, site: Site, body: Graph, shape: tuple[int, int, int]) -> None:
    """Memory as [outer, C, inner], vectors along the inner extent: a channel's value is splat."""
    *loops, inner = shape
    lanes = site.lanes(inner)
    arguments = declare(k, site, _view(site, shape))
    with nest(k, loops, parallel=True) as (i, channel):

        def tile(start: Affine, count: int) -> None:
            def load(number: int) -> Vec:
                handle = arguments.operands[number]
                if len(handle.buffer.shape) == len(shape):
                    return handle.load((i, channel, start), lanes, count)
                return handle.splat((channel,) if handle.buffer.shape else (), lanes)

            _store(arguments, _evaluate(k, body, load, lanes), (i, channel, start), count)

        vectors(k, inner, lanes, tile)


def _view(site: Site, shape: tuple[int, ...]) -> Callable[[Tensor], Sequence[int]]:
    rank = site.results[0].type.rank
    return lambda tensor: shape if tensor.type.rank == rank else tensor.physical


def _evaluate(k: KernelBuilder, body: Graph, load: Load, lanes: int) -> list[Vec]:
    """Vectors of the body's outputs; nothing is stored before everything is loaded."""
    known: dict[Value, Vec] = {}

    def value(operand: Value) -> Vec:
        if operand not in known:
            known[operand] = load(body.inputs.index(operand))
        return known[operand]

    for node in body.nodes:
        assert isinstance(node.op, Elementwise), f"{node.op.name} is not elementwise"
        operands = {letter: value(o) for letter, o in zip(LETTERS, node.operands, strict=False)}
        known[node.result] = emit_expression(k, node.op.expr, operands, lanes)
    return [known[output] for output in body.outputs]


def _store(arguments: Arguments, values: list[Vec], place: Sequence[Affine], count: int) -> None:
    for handle, value in zip(arguments.results, values, strict=True):
        handle.store(place, value, count)
