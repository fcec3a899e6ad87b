"""Elementwise ops, alone or in a region of nothing else, over memory of any layout.

All full operands and all results lie in memory in one order, so without channel operands the kernel
need not know their shape: it runs over flat memory, but for tensors inside wider ones. A padded tail is
computed with and stays harmless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.expressions import emit_expression
from cnnc.backend.kernels.loops import Body, by_images, flat_vectors, images_apart, vectors
from cnnc.backend.kernels.region import Region
from cnnc.backend.kernels.site import Arguments, Site, Tensor, declare
from cnnc.errors import UnsupportedError
from cnnc.ir.graph import Graph, Node
from cnnc.ops.elementwise import LETTERS, Elementwise
from cnnc.ops.scalar import Call, Expr, variables

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
    has_channels = any(0 < tensor.type.rank < rank for tensor in site.operands)
    if not has_channels and all(tensor.is_dense for tensor in (*site.operands, *site.results)):
        _flat(k, site, region.body)
    else:
        _with_channels(k, site, region.body)
    return k.build()


def _flat(k: KernelBuilder, site: Site, body: Graph) -> None:
    """One loop over all elements; scalar operands are splat."""
    full = site.results[0]
    size = full.size // max(1, site.images)
    lanes = site.lanes(size)
    arguments = declare(k, site, lambda t: (t.size,) if t.type.rank == full.type.rank else ())
    with images_apart(k, site, full.size) as first:
        flat_vectors(k, size, lanes, lambda: _begin_flat(k, body, arguments, first, lanes))


def _begin_flat(k: KernelBuilder, body: Graph, arguments: Arguments, first: Affine, lanes: int) -> Body:
    """What is done with vectors that begin so many elements behind `first`."""
    scalars = [i for i, handle in enumerate(arguments.operands) if not handle.buffer.shape]
    steady = {i: arguments.operands[i].splat((), lanes) for i in scalars}
    values = _Values(k, body, lanes, steady)

    def tile(start: Affine, count: int) -> None:
        place = (first + start,)
        values.store(arguments, lambda i: arguments.operands[i].load(place, lanes, count), place, count)

    return tile


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
    with by_images(k, site, "i", lead) as i:
        scalars = [number for number, handle in enumerate(arguments.operands) if not handle.buffer.shape]
        values = _Values(k, body, lanes, {n: arguments.operands[n].splat((), lanes) for n in scalars})
        with k.loop("row", 0, rows) as row:

            def tile(start: Affine, count: int) -> None:
                place = (i, row, start)

                def load(number: int) -> Vec:
                    handle = arguments.operands[number]
                    return handle.load(place[-len(handle.buffer.shape) :], lanes, count)

                values.store(arguments, load, place, count)

            vectors(k, channels, lanes, tile)


def _channels_outside(k: KernelBuilder, site: Site, body: Graph, shape: tuple[int, int, int]) -> None:
    """Memory as [outer, C, inner], vectors along the inner extent: a channel's value is splat."""
    outer, channels, inner = shape
    lanes = site.lanes(inner)
    arguments = declare(k, site, _view(site, shape))
    with by_images(k, site, "i", outer) as i, k.loop("i", 0, channels, parallel=True) as channel:
        steady = {
            number: handle.splat((channel,)[: len(handle.buffer.shape)], lanes)
            for number, handle in enumerate(arguments.operands)
            if len(handle.buffer.shape) < len(shape)
        }
        values = _Values(k, body, lanes, steady)

        def tile(start: Affine, count: int) -> None:
            place = (i, channel, start)
            values.store(arguments, lambda n: arguments.operands[n].load(place, lanes, count), place, count)

        vectors(k, inner, lanes, tile)


def _view(site: Site, shape: tuple[int, ...]) -> Callable[[Tensor], Sequence[int]]:
    rank = site.results[0].type.rank
    return lambda tensor: shape if tensor.type.rank == rank else tensor.physical


class _Values:
    """The body's values, vector by vector. What depends on `steady` operands alone, which are those
    that do not change from vector to vector, is computed at once, where this object is made."""

    def __init__(self, k: KernelBuilder, body: Graph, lanes: int, steady: Mapping[int, Vec]) -> None:
        self._k, self._body, self._lanes = k, body, lanes
        self._steady = {body.inputs[number]: value for number, value in steady.items()}
        self._terms = [self._steady_terms(node) for node in body.nodes]

    def _steady_terms(self, node: Node) -> Mapping[Expr, Vec]:
        """The largest terms of a node's expression over steady operands."""
        letters = zip(LETTERS, node.operands, strict=False)
        known = {letter: self._steady[o] for letter, o in letters if o in self._steady}
        terms = _terms_over(_expression(node), known.keys())
        return {term: emit_expression(self._k, term, known, self._lanes) for term in terms}

    def store(self, arguments: Arguments, load: Load, place: Sequence[Affine], count: int) -> None:
        """Compute and store a vector of each result; all operands are loaded before the first store."""
        known = dict(self._steady)
        for node, terms in zip(self._body.nodes, self._terms, strict=True):
            for operand in node.operands:
                if operand not in known:
                    known[operand] = load(self._body.inputs.index(operand))
            operands = {letter: known[o] for letter, o in zip(LETTERS, node.operands, strict=False)}
            known[node.result] = emit_expression(self._k, _expression(node), operands, self._lanes, terms)
        for handle, output in zip(arguments.results, self._body.outputs, strict=True):
            handle.store(place, known[output], count)


def _expression(node: Node) -> Expr:
    assert isinstance(node.op, Elementwise), f"{node.op.name} is not elementwise"
    return node.op.expr


def _terms_over(expr: Expr, names: Set[str]) -> Iterator[Call]:
    """The largest calls in `expr` whose variables are all among `names`."""
    if not isinstance(expr, Call):
        return
    if set(variables(expr)) <= names:
        yield expr
        return
    for argument in expr.args:
        yield from _terms_over(argument, names)
