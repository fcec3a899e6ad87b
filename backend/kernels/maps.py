"""Padding, cropping and spreading of maps, channels last or row-major, and constants.

A channels-last row is W * C elements side by side, a row-major one W: both are copied as flat rows, but
for maps inside wider ones, whose pixels are copied one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.loops import by_images, flat_vectors, vectors
from cnnc.backend.kernels.site import Site, Tensor, declare
from cnnc.errors import UnsupportedError
from cnnc.ir.types import Array
from cnnc.ops.shape import Constant, Crop2d, Dilate2d, Pad2d


@dataclass(frozen=True)
class _Maps:
    """A tensor's memory as images, rows, columns and pixels; `pixel` channels stand side by side."""

    images: int
    rows: int
    columns: int
    pixel: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Maps:
        """Raises UnsupportedError unless the layout is acdb or abcd."""
        n, c, height, width = tensor.shape
        if tensor.layout.tag == "acdb":
            return cls(n, height, width, c)
        if tensor.layout.tag == "abcd":
            return cls(n * c, height, width, 1)
        raise UnsupportedError(f"maps are copied in the layouts acdb and abcd, not {tensor.layout}")

    def view(self, is_flat: bool) -> tuple[int, ...]:
        """As [images, rows, columns * pixel] or [images, rows, columns, pixel]."""
        if is_flat:
            return self.images, self.rows, self.columns * self.pixel
        return self.images, self.rows, self.columns, self.pixel


@dataclass(frozen=True)
class _Rows:
    """Copies pieces of rows between two buffers of maps, or fills them with zeros.

    The buffers have views of the kind `is_flat`, with `pixel` channels in a pixel.
    """

    k: KernelBuilder
    source: BufferHandle
    target: BufferHandle
    image: Affine
    lanes: int
    pixel: int
    is_flat: bool

    def copy(self, row: Affine, column: Affine, to_row: Affine, to_column: Affine, columns: int) -> None:
        def tile(x: Affine, start: Affine, count: int) -> None:
            value = self.source.load(self._place(row, column + x, start), self.lanes, count)
            self.target.store(self._place(to_row, to_column + x, start), value, count)

        self._pieces(columns, tile)

    def zero(self, row: Affine, column: Affine, columns: int) -> None:
        def tile(x: Affine, start: Affine, count: int) -> None:
            zeros = self.k.constant(0.0, self.lanes)
            self.target.store(self._place(row, column + x, start), zeros, count)

        self._pieces(columns, tile)

    def zero_rows(self, start: int, stop: int, columns: int) -> None:
        if start < stop:
            with self.k.loop("y", start, stop) as y:
                self.zero(y, affine(0), columns)

    def _pieces(self, columns: int, body: Callable[[Affine, Affine, int], None]) -> None:
        """`body(x, start, count)` for vectors from element `start` of column `x` on that cover `columns`."""
        if self.is_flat:
            vectors(self.k, columns * self.pixel, self.lanes, lambda start, n: body(affine(0), start, n))
        elif columns:
            with self.k.once_or_loop("x", columns) as x:
                vectors(self.k, self.pixel, self.lanes, lambda start, n: body(x, start, n))

    def _place(self, row: Affine, column: Affine, start: Affine) -> tuple[Affine, ...]:
        if self.is_flat:
            return self.image, row, column * self.pixel + start
        return self.image, row, column, start


def _map_kernel(site: Site, image: Callable[[_Rows, _Maps, _Maps], None]) -> Kernel:
    """A kernel that writes the result's maps in parallel, each from the operand's map of its number."""
    x, y = _Maps.of(site.operands[0]), _Maps.of(site.results[0])
    if x.pixel != y.pixel:
        raise UnsupportedError(
            f"{site.op.name}: from {site.operands[0].layout} to {site.results[0].layout}; layouts must agree"
        )
    k = KernelBuilder(site.op.name)
    is_flat = site.operands[0].is_dense and site.results[0].is_dense
    arguments = declare(k, site, lambda tensor: _Maps.of(tensor).view(is_flat))
    lanes = site.lanes(min(x.columns, y.columns) * x.pixel if is_flat else x.pixel)
    with by_images(k, site, "i", x.images) as i:
        image(_Rows(k, arguments.operands[0], arguments.results[0], i, lanes, x.pixel, is_flat), x, y)
    return k.build()


def pad2d(site: Site) -> Kernel:
    """y = x with zeros around each map."""
    op = site.op
    assert isinstance(op, Pad2d)
    top, left, bottom, right = op.pad

    def image(rows: _Rows, x: _Maps, y: _Maps) -> None:
        rows.zero_rows(0, top, y.columns)
        with rows.k.loop("y", 0, x.rows) as row:
            rows.zero(row + top, affine(0), left)
            rows.copy(row, affine(0), row + top, affine(left), x.columns)
            rows.zero(row + top, affine(left + x.columns), right)
        rows.zero_rows(y.rows - bottom, y.rows, y.columns)

    return _map_kernel(site, image)


def crop2d(site: Site) -> Kernel:
    """y = x without its border."""
    op = site.op
    assert isinstance(op, Crop2d)
    top, left, _, _ = op.pad

    def image(rows: _Rows, x: _Maps, y: _Maps) -> None:
        with rows.k.loop("y", 0, y.rows) as row:
            rows.copy(row + top, affine(left), row, affine(0), y.columns)

    return _map_kernel(site, image)


def dilate2d(site: Site) -> Kernel:
    """y = x with stride - 1 zeros between neighbours in a row and in a column."""
    op = site.op
    assert isinstance(op, Dilate2d)
    down, across = op.stride

    def image(rows: _Rows, x: _Maps, y: _Maps) -> None:
        def spread(row: Affine) -> None:
            with rows.k.loop("x", 0, x.columns - 1) as column:
                rows.copy(row, column, row * down, column * across, 1)
                rows.zero(row * down, column * across + 1, across - 1)
            last = affine(x.columns - 1)
            rows.copy(row, last, row * down, last * across, 1)

        with rows.k.loop("y", 0, x.rows - 1) as row:
            spread(row)
            for between in range(1, down):
                rows.zero(row * down + between, affine(0), y.columns)
        spread(affine(x.rows - 1))

    return _map_kernel(site, image)


def constant(site: Site) -> Kernel:
    """The op's values; stretches of one value are filled vector by vector."""
    op, (result,) = site.op, site.results
    assert isinstance(op, Constant)
    if op.dtype != "f32":
        raise UnsupportedError(f"a constant of {op.dtype} in a kernel; kernels write f32")
    lanes = site.lanes(result.size)
    k = KernelBuilder(op.name)
    (handle,) = declare(k, site, lambda t: (t.size,)).results
    memory = result.layout.pack(op.reference()[0]).reshape(-1)
    for first, last in _stretches(memory):
        _fill(k, handle, float(memory[first]), (first, last), lanes)
    return k.build()


def _stretches(memory: Array) -> list[tuple[int, int]]:
    """(first, end) of each longest stretch of equal values."""
    edges = [0, *(np.flatnonzero(memory[1:] != memory[:-1]) + 1), len(memory)]
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def _fill(k: KernelBuilder, handle: BufferHandle, value: float, span: tuple[int, int], lanes: int) -> None:
    first, end = span

    def tile(start: Affine, count: int) -> None:
        handle.store((start + first,), k.constant(value, lanes), count)

    if span == (0, handle.buffer.shape[0]):
        flat_vectors(k, end, lanes, lambda: tile)
    else:
        vectors(k, end - first, lanes, tile)
