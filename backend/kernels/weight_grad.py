"""Weight gradients of convolutions and dense products as register-tiled FMAs.

dw[m, c, r, s] = sum over n, y, x of dy[n, m, y, x] * source[n, c, y*sh + r*dh - top, x*sw + s*dw - left]. A
register tile holds some channels (or, of a source with few, columns of the filter times channels) by some
vectors of maps. It adds up a chunk of pixels at a time, in one fixed order; weight_grad_parts.py says which.
Taps outside the source are left out. The source is channels-last; the result is packed in blocks of maps, as a
forward contraction wants its weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Tile, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.contraction import Contraction, dense
from cnnc.backend.kernels.site import Site, Tensor, channel_tiles, declare
from cnnc.backend.kernels.tiles import split
from cnnc.backend.kernels.weight_grad_parts import Work, choose_chunks, choose_parts, rows_of_a_tile
from cnnc.ir.layout import row_major
from cnnc.ir.types import TensorType
from cnnc.ops.conv import Conv2dWeightGrad
from cnnc.ops.dense import DenseWeightGrad


def conv2d_weight_grad(site: Site) -> Kernel:
    """Any stride, padding, dilation and group count."""
    op, (dy, x) = site.op, site.operands
    assert isinstance(op, Conv2dWeightGrad)
    shape = Contraction(
        x.shape[0],
        op.groups,
        x.shape[1] // op.groups,
        dy.shape[1] // op.groups,
        (x.shape[2], x.shape[3]),
        (dy.shape[2], dy.shape[3]),
        op.kernel,
        op.stride,
        op.pad[:2],
        op.dilation,
    )
    return _weight_grad(site, _one_column(shape) if shape.is_pointwise else shape)


def dense_weight_grad(site: Site) -> Kernel:
    """dy [N,O], x [N,*S] -> dw, the elements of S in the order x has them in."""
    assert isinstance(site.op, DenseWeightGrad)
    dy, x = site.operands
    return _weight_grad(site, _one_column(dense(x.shape[0], x.type.size // x.shape[0], dy.shape[1])))


def _one_column(shape: Contraction) -> Contraction:
    """All pixels of all images as one column: their order in memory."""
    pixels = shape.batch * shape.result[0] * shape.result[1]
    return replace(shape, batch=1, source=(pixels, 1), result=(pixels, 1))


def _weight_grad(site: Site, shape: Contraction) -> Kernel:
    """The kernel, with tensors seen as [N,H,W,C], and weights as [blocks,Kh,Kw*C,B]."""
    dy, x = site.operands
    pixels = (
        _seen(dy, (shape.batch, *shape.result, shape.groups * shape.maps)),
        _seen(x, (shape.batch, *shape.source, shape.groups * shape.channels)),
    )
    block = site.results[0].layout.block
    blocks = -(-shape.groups * shape.maps // block)
    weights = _seen(site.results[0], (blocks, shape.kernel[0], shape.kernel[1] * shape.channels, block))
    return _WeightGrad(replace(site, operands=pixels, results=(weights,)), shape, block).build()


def _seen(tensor: Tensor, physical: tuple[int, ...]) -> Tensor:
    return Tensor(TensorType(tensor.type.dtype, physical), row_major(len(physical)), tensor.pitch)


@dataclass(frozen=True)
class _Segment:
    """`length` neighbours in a source row, from `column` of a window on, that tiles run along; they are the
    weights of a filter row from `weight` on. `columns` are the pixels of a row that reach the source."""

    weight: int
    column: int
    length: int
    columns: range


@dataclass(frozen=True)
class _Part:
    """What one iteration computes: a group, a filter row, the first weight in each segment, and the first
    block of maps."""

    group: Affine
    r: Affine
    start: Affine
    block: Affine


@dataclass(frozen=True)
class _Block:
    """A block of maps of a group: its number, that inside the part, and the maps in each of its vectors."""

    number: Affine
    inside: Affine
    counts: tuple[int, ...]


@dataclass(frozen=True)
class _Chunk:
    """First image and row of a chunk of pixels, and how many of each there are."""

    image: Affine
    row: Affine
    images: int
    rows: int


class _WeightGrad:
    """Writes one weight gradient."""

    def __init__(self, site: Site, shape: Contraction, block: int) -> None:
        self.site, self.shape, self.block = site, shape, block
        self.k = KernelBuilder(site.op.name)
        arguments = declare(self.k, site)
        self.dy, self.source = arguments.operands
        self.dw = arguments.results[0]
        self.lanes = min(site.target.lanes, block)
        self.blocks = -(-shape.maps // block)
        self.segments = self._segments()
        length = self.segments[0].length
        work = Work(
            (shape.batch, *shape.result), shape.groups * shape.kernel[0], len(self.segments), length, self.blocks, block
        )
        self.parts = choose_parts(site.target, work)
        self.chunks = choose_chunks(site.target, self.parts)
        vectors = len(channel_tiles(min(block, shape.maps), self.lanes))
        self.sizes = split(self.parts.length, rows_of_a_tile(site.target, self.parts.length, vectors))
        self.sums = self._declare_sums() if self.chunks.number > 1 else None

    def _segments(self) -> tuple[_Segment, ...]:
        shape, (_, width) = self.shape, self.shape.source
        segments = []
        for s in range(shape.kernel[1]):
            first = [x for x in range(shape.result[1]) if 0 <= shape.source_index(1, x, s) < width]
            columns = range(first[0], first[-1] + 1) if first else range(0)
            segments.append(_Segment(s * shape.channels, s * shape.dilation[1], shape.channels, columns))
        return tuple(segments)

    def _declare_sums(self) -> BufferHandle:
        parts = self.parts
        return self.k.scratch("sums", (parts.blocks, len(self.segments), parts.length, self.block))

    def build(self) -> Kernel:
        shape, (along, across) = self.shape, self.parts.counts
        with ExitStack() as nest:

            def parallel(name: str, extent: int) -> Affine:
                return nest.enter_context(self.k.loop(name, 0, extent, parallel=True))

            group = parallel("group", shape.groups) if shape.groups > 1 else affine(0)
            r = parallel("r", shape.kernel[0])
            start = parallel("channels", along) * self.parts.length if along > 1 else affine(0)
            block = parallel("maps", across) * self.parts.blocks
            part = _Part(group, r, start, block)
            if self.sums is not None:
                self._each_sum(part, lambda block, place: self._clear(place))
            for chunk in self._chunks():
                pass
            self._all_chunks(part)
            if self.sums is not None:
                self._each_sum(part, lambda block, place: self._finish(part, block, place))
        return self.k.build()
