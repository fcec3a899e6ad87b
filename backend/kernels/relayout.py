"""Copies between layouts: relayout, and flatten and reshape where they are no mere alias.

Every axis is walked in units: blocks of an axis that a layout cuts, vectors or short runs of the axis
that is fastest in memory, single elements of the others. A unit's offsets inside are constants or one
short loop, so that all indices stay affine. Loops stand in the order of the target's memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.loops import each_run, flat_vectors, images_apart
from cnnc.backend.kernels.site import Site, Tensor, channel_tiles, declare
from cnnc.errors import UnsupportedError
from cnnc.ir.layout import row_major

RUN = 16
"""Elements of a cache line: how far a transposition goes along each of its two fastest axes at a time."""


@dataclass(frozen=True)
class Coordinate:
    """`unit` * size + `offset` along an axis, `valid` offsets of the unit being elements."""

    unit: Affine
    size: int
    valid: int
    offset: Affine

    @property
    def position(self) -> Affine:
        return self.unit * self.size + self.offset

    def block(self, length: int) -> tuple[Affine, Affine]:
        """Number of the block of that length, and the place in it; `length` divides `size`."""
        if length == self.size:
            return self.unit, self.offset
        assert not self.offset.terms, "an offset that runs must stay in one block"
        number, place = divmod(self.offset.constant, length)
        return self.unit * (self.size // length) + number, affine(place)

    def at(self, offset: Affine | int) -> Coordinate:
        return Coordinate(self.unit, self.size, self.valid, affine(offset))


Coordinates = Mapping[int, Coordinate]


def relayout(site: Site) -> Kernel:
    """The operand's values in the result's layout; what pads blocks is zero."""
    return _copy(site, site.operands[0], site.results[0])


def reshape(site: Site) -> Kernel:
    """The operand's elements, in row-major order, under the result's shape.

    Raises UnsupportedError if neither lies in memory in that order.
    """
    (x,), (y,) = site.operands, site.results
    if y.order == Tensor(y.type, row_major(y.type.rank)).order:
        return _copy(site, x, Tensor(x.type, row_major(x.type.rank)))
    if x.order == Tensor(x.type, row_major(x.type.rank)).order:
        return _copy(site, Tensor(y.type, row_major(y.type.rank)), y)
    raise UnsupportedError(f"{site.op.name}: from {x.layout} to {y.layout}; one must be row-major")


def _copy(site: Site, source: Tensor, target: Tensor) -> Kernel:
    k = KernelBuilder(site.op.name)
    if source.order == target.order and all(t.is_dense for t in (*site.operands, *site.results)):
        _copy_flat(k, site)
        return k.build()
    arguments = declare(k, site, lambda t: target.physical if t is site.results[0] else source.physical)
    inner, across = (target.shape[t.inner_axis or 0] for t in (target, source))
    copy = _Copy(
        k, source, target, arguments.operands[0], arguments.results[0],
        site.lanes(inner), site.lanes(min(inner, across)), site.each_image,
    )  # fmt: skip
    copy.nest(target.layout.axes, {}, free=True)
    return k.build()


def _copy_flat(k: KernelBuilder, site: Site) -> None:
    whole = site.results[0].size
    size = whole // max(1, site.images)
    lanes = site.lanes(size)
    arguments = declare(k, site, lambda t: (t.size,))
    with images_apart(k, site, whole) as first:

        def tile(start: Affine, count: int) -> None:
            value = arguments.operands[0].load((first + start,), lanes, count)
            arguments.results[0].store((first + start,), value, count)

        flat_vectors(k, size, lanes, lambda: tile)


@dataclass(frozen=True)
class _Copy:
    """A copy from a buffer that lies like `source` to one that lies like `target`, by vectors of `lanes` or,
    to transpose, by squares of `edge`. With `images` 1 axis 0 holds images, whose loop is marked."""

    k: KernelBuilder
    source: Tensor
    target: Tensor
    reader: BufferHandle
    writer: BufferHandle
    lanes: int
    edge: int
    images: int

    @property
    def straight(self) -> bool:
        """Whether the same axis is fastest on both sides, so that vectors can be copied."""
        return self.source.inner_axis == self.target.inner_axis

    def size(self, axis: int) -> int:
        """Elements of a unit of the axis: a multiple of either side's block."""
        if axis == 0 and self.images:
            return 1
        blocks = [t.layout.block for t in (self.source, self.target) if t.layout.blocked_axis == axis]
        if blocks or axis not in (self.source.inner_axis, self.target.inner_axis):
            return math.lcm(*blocks)
        return self.lanes if self.straight else RUN

    def nest(self, axes: Sequence[int], at: Coordinates, free: bool) -> None:
        """Loops over the units of `axes`; the last unit of an axis may have fewer elements.

        They are parallel as long as nothing stands beside them (`free`).
        """
        if not axes:
            self.tile(at)
            return
        axis, extent, size = axes[0], self.target.shape[axes[0]], self.size(axes[0])
        whole, rest = divmod(extent, size)
        free = free and not (whole and rest)
        if whole:
            images = 0 if axis else self.images
            with self.k.loop("i", 0, whole, parallel=free, images=images) as unit:
                self.nest(axes[1:], {**at, axis: Coordinate(unit, size, size, affine(0))}, free)
        if rest:
            self.nest(axes[1:], {**at, axis: Coordinate(affine(whole), size, rest, affine(0))}, free)

    def tile(self, at: Coordinates) -> None:
        """Copy one unit of every axis."""
        inner = self.target.inner_axis
        assert inner is not None, "scalars are copied flat"
        if self.straight:
            self.copy_vectors(at, inner)
        else:
            self.copy_squares(at, inner)

    def copy_vectors(self, at: Coordinates, inner: int) -> None:
        """A unit of the one axis that is fastest on both sides; loads fill up with zeros."""
        unit, padded = at[inner], self.target.layout.block > 1
        blocks = [t.layout.block for t in (self.source, self.target) if t.layout.block > 1]
        piece = min(self.lanes, math.gcd(*blocks)) if blocks else unit.size
        for offset in range(0, _rounded(unit.valid, self.target.layout.block), piece):
            count, place = min(piece, unit.valid - offset), {**at, inner: unit.at(offset)}
            if count > 0:
                value = self.reader.load(_place(self.source, place), piece, count)
            else:
                value = self.k.constant(0.0, piece)
            self.writer.store(_place(self.target, place), value, piece if padded else count)

    def copy_squares(self, at: Coordinates, inner: int) -> None:
        """A transposition of short runs along the two fastest axes, a square in registers at a time; zeros
        behind the target's last."""
        across, rows = self.source.inner_axis, at[inner]
        assert across is not None, "scalars are copied flat"
        edge, stored = self.edge, _rounded(rows.valid, self.target.layout.block)

        def place(tensor: Tensor, s: Affine, t: Affine) -> list[Affine]:
            return _place(tensor, {**at, across: at[across].at(s), inner: rows.at(t)})

        def square(s: Affine, width: int, t: Affine, known: int, count: int) -> None:
            loaded = [self.reader.load(place(self.source, s, t + i), edge, width) for i in range(known)]
            for i, column in enumerate(self.k.transposed(loaded, edge)[:width]):
                self.writer.store(place(self.target, s + i, t), column, count)

        def line(s: Affine, width: int) -> None:
            whole = rows.valid - rows.valid % edge
            each_run(self.k, "t", (edge,) * (whole // edge), lambda t, n: square(s, width, t, n, n))
            for t in range(whole, stored, edge):
                known = max(0, rows.valid - t)
                square(s, width, affine(t), known, min(edge, stored - t))

        each_run(self.k, "s", [count for _, count in channel_tiles(at[across].valid, edge)], line)


def _rounded(extent: int, block: int) -> int:
    """The extent of an axis with the zeros that fill its last block."""
    return -(-extent // block) * block


def _place(tensor: Tensor, at: Coordinates) -> list[Affine]:
    """Physical index of coordinates, the block's dimension last."""
    layout = tensor.layout
    if layout.blocked_axis is None:
        return [at[axis].position for axis in layout.axes]
    number, place = at[layout.blocked_axis].block(layout.block)
    return [number if axis == layout.blocked_axis else at[axis].position for axis in layout.axes] + [place]
