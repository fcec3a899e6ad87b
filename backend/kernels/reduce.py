"""Sums over whole axes, and their adjoint, which repeats a tensor along new axes.

Where the fastest axis in memory stays, as in bias gradients of channels-last maps, vectors run along
it and are added up; where it goes, vectors run along it and their lanes are added at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.loops import UNROLL, Accumulators, flat_sum, nest, vectors
from cnnc.backend.kernels.site import Site, Tensor, channel_tiles, declare
from cnnc.ops.reduce import Broadcast, Sum

IN_FLIGHT = 8
"""Additions under way at a time: two a cycle, four cycles each."""

RUN = 1024
"""Most elements added up in one register before it is added to the total: bounds rounding errors."""


def sum_axes(site: Site) -> Kernel:
    """y = the sum of x over the op's axes."""
    op, (x,), (y,) = site.op, site.operands, site.results
    assert isinstance(op, Sum)
    k = KernelBuilder(op.name)
    if y.type.rank == 0:
        _sum_everything(k, site)
        return k.build()
    arguments = declare(k, site)
    kept = tuple(axis for axis in range(x.type.rank) if axis not in op.axes)
    summed = tuple(axis for axis in x.layout.axes if axis in op.axes)
    sums = _Sums(k, x, y, arguments.operands[0], arguments.results[0], kept, summed, site.each_image)
    if x.inner_axis in op.axes:
        sums.along_rows(site.lanes(x.physical[-1]))
    else:
        inner = kept[y.layout.axes[-1]]
        sums.along_columns(inner, site.lanes(x.shape[inner]) if inner == x.inner_axis else 1)
    return k.build()


def _sum_everything(k: KernelBuilder, site: Site) -> None:
    (x,) = site.operands
    lanes = site.lanes(x.size)
    arguments = declare(k, site, lambda t: (t.size,) if t.type.rank else ())
    term = arguments.operands[0].load
    total = flat_sum(k, x.size, lanes, lambda start, count: term((start,), lanes, count))
    arguments.results[0].store((), total)


@dataclass(frozen=True)
class _Sums:
    """A sum over the axes `summed`, in the order of memory, of x; the axes `kept` are y's, in order. With
    `images` 1 the first of them holds images, and the loop over them is marked."""

    k: KernelBuilder
    x: Tensor
    y: Tensor
    source: BufferHandle
    result: BufferHandle
    kept: tuple[int, ...]
    summed: tuple[int, ...]
    images: int

    def along_rows(self, lanes: int) -> None:
        """Vectors along the fastest axis, which is summed: for every element of y, a sum of lanes."""
        *outer, inner = self.summed
        with nest(self.k, self.extents(self.kept), parallel=True, images=self.images) as place:
            at = dict(zip(self.kept, place, strict=True))
            part = Accumulators(self.k, lanes, UNROLL)
            with nest(self.k, self.extents(outer)) as loops:
                at |= dict(zip(outer, loops, strict=True))

                def tile(start: Affine, count: int) -> None:
                    part.add(self.source.load(self.x.place(_index({**at, inner: start})), lanes, count))

                vectors(self.k, self.x.shape[inner], lanes, tile)
            self.result.store(self.y.place(place), self.k.reduce("add", part.total()))

    def along_columns(self, inner: int, lanes: int) -> None:
        """Vectors along the axis `inner`, which y keeps and has fastest: several at a time."""
        outer, extent = tuple(axis for axis in self.kept if axis != inner), self.x.shape[inner]
        group = next((g for g in (4, 2, 1) if extent % (g * lanes) == 0), None)
        with nest(self.k, self.extents(outer), parallel=True, images=self.images) as place:
            at = dict(zip(outer, place, strict=True))
            if group is not None:
                step = group * lanes
                with self.k.loop("c", 0, extent, step, parallel=True) as start:
                    self.group(at, inner, lanes, start, channel_tiles(step, lanes))
                return
            whole = extent - extent % (4 * lanes)
            if whole:
                with self.k.loop("c", 0, whole, 4 * lanes) as start:
                    self.group(at, inner, lanes, start, channel_tiles(4 * lanes, lanes))
            self.group(at, inner, lanes, affine(whole), channel_tiles(extent - whole, lanes))

    def group(
        self,
        at: Mapping[int, Affine],
        inner: int,
        lanes: int,
        first: Affine,
        tiles: Sequence[tuple[int, int]],
    ) -> None:
        """Sum up the vectors `tiles` from `first` on along the axis `inner`, at one place of y."""
        split = len(self.summed) - 1
        while split and math.prod(self.extents(self.summed[split - 1 :])) <= RUN:
            split -= 1
        outer, (*middle, last) = self.summed[:split], self.summed[split:]
        ways = min(self.x.shape[last], max(1, IN_FLIGHT // len(tiles)))
        totals = self.k.register("total", lanes, (len(tiles),))
        with nest(self.k, self.extents(outer)) as loops:
            parts = [Accumulators(self.k, lanes, ways) for _ in tiles]
            with nest(self.k, self.extents(middle)) as inner_loops:
                place = {**at, **dict(zip((*outer, *middle), (*loops, *inner_loops), strict=True))}

                def element(i: Affine) -> None:
                    for part, (start, count) in zip(parts, tiles, strict=True):
                        index = _index({**place, last: i, inner: first + start})
                        part.add(self.source.load(self.x.place(index), lanes, count))

                self.k.unrolled("i", self.x.shape[last], ways, element)
            for number, part in enumerate(parts):
                totals[number,] = totals[number,] + part.total()
        for number, (start, count) in enumerate(tiles):
            place = {**at, inner: first + start}
            self.result.store(self.y.place([place[axis] for axis in self.kept]), totals[number,], count)

    def extents(self, axes: Sequence[int]) -> list[int]:
        return [self.x.shape[axis] for axis in axes]


def _index(coordinates: Mapping[int, Affine]) -> list[Affine]:
    return [coordinates[axis] for axis in range(len(coordinates))]


def broadcast(site: Site) -> Kernel:
    """y = x repeated along the op's axes."""
    op, (x,), (y,) = site.op, site.operands, site.results
    assert isinstance(op, Broadcast)
    k = KernelBuilder(op.name)
    arguments = declare(k, site)
    source, result = arguments.operands[0], arguments.results[0]
    kept = [axis for axis in range(y.type.rank) if axis not in op.axes]
    *outer, inner = y.layout.axes
    repeated = inner in op.axes
    loads = not repeated and kept[x.layout.axes[-1]] == inner
    lanes = site.lanes(y.shape[inner]) if repeated or loads else 1
    extents = [y.shape[axis] for axis in outer]
    with nest(k, extents, parallel=True, images=site.each_image) as loops:

        def tile(start: Affine, count: int) -> None:
            at = {**dict(zip(outer, loops, strict=True)), inner: start}
            place = x.place([at[axis] for axis in kept])
            value = source.splat(place, lanes) if repeated else source.load(place, lanes, count)
            result.store(y.place(_index(at)), value, count)

        vectors(k, y.shape[inner], lanes, tile)
    return k.build()
