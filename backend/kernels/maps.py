"""Padding, cropping and spreading of maps, channels last or row-major, and constants.

A channels-last row is W * C elements side by side, a row-major one W: both are copied as flat rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.loops import flat_vectors, vectors
from cnnc.backend.kernels.site import Site, Tensor, declare
from cnnc.errors import UnsupportedError
from cnnc.ir.types import Array
from cnnc.ops.shape import Constant, Crop2d, Dilate2d, Pad2d


@dataclass(frozen=True)
class _Maps:
    """A tensor's memory as [images, rows, columns * pixel]; `pixel` channels stand side by side."""

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

    @property
    def view(self) -> tuple[int, int, int]:
        return self.images, self.rows, self.columns * self.pixel


@dataclass(frozen=True)
class _Rows:
    """Copies pieces of rows between two buffers of maps, or fills them with zeros."""

    k: KernelBuilder
    source: BufferHandle
    target: BufferHandle
    image: Affine
    lanes: int

    def copy(self, row: Affine, start: Affine, to_row: Affine, to_start: Affine, extent: int) -> None:
        def tile(i: Affine, count: int) -> None:
            value = self.source.load((self.image, row, start + i), self.lanes, count)
            self.target.store((self.image, to_row, to_start + i), value, count)

        vectors(self.k, extent, self.lanes, tile)

    def zero(self, row: Affine, start: Affine, extent: int) -> None:
        def tile(i: Affine, count: int) -> None:
            zeros = self.k.constant(0.0, self.lanes)
            self.target.store((self.image, row, start + i), zeros, count)

        vectors(self.k, extent, self.lanes, tile)

    def zero_rows(self, start: int, stop: int) -> None:
        if start < stop:
            with self.k.loop("y", start, stop) as y:
                self.zero(y, affine(0), self.target.buffer.shape[2])


def _map_kernel(site: Site, image: Callable[[_Rows, _Maps, _Maps], None]) -> Kernel:
    """A kernel that writes the result's maps in parallel, each from the operand's map of its number."""
    x, y = _Maps.of(site.operands[0]), _Maps.of(site.results[0])
    if x.pixel != y.pixel:
        raise UnsupportedError(
            f"{site.op.name}: from {site.operands[0].layout} to {site.results[0].layout}; layouts must agree"
        )
    k = KernelBuilder(site.op.name)
    arguments = declare(k, site, lambda tensor: _Maps.of(tensor).view)
    lanes = site.lanes(min(x.view[2], y.view[2]))
    with k.loop("i", 0, x.images, parallel=True) as i:
        image(_Rows(k, arguments.operands[0], arguments.results[0], i, lanes), x, y)
    return k.build()


def pad2d(site: Site) -> Kernel:
    """y = x with zeros around each map."""
    op = site.op
    assert isinstance(op, Pad2d)
    top, left, bottom, right = op.pad

    def image(rows: _Rows, x: _Maps, y: _Maps) -> None:
        inside = x.view[2]
        rows.zero_rows(0, top)
        with rows.k.loop("y", 0, x.rows) as row:
            rows.zero(row + top, affine(0), left * x.pixel)
            rows.copy(row, affine(0), row + top, affine(left * x.pixel), inside)
            rows.zero(row + top, affine(left * x.pixel + inside), right * x.pixel)
        rows.zero_rows(y.rows - bottom, y.rows)

    return _map_kernel(site, image)


def crop2d(site: Site) -> Kernel:
    """y = x without its border."""
    op = site.op
    assert isinstance(op, Crop2d)
    top, left, _, _ = op.pad

    def image(rows: _Rows, x: _Maps, y: _Maps) -> None:
        with rows.k.loop("y", 0, y.rows) as row:
            rows.copy(row + top, affine(left * x.pixel), row, affine(0), y.view[2])

    return _map_kernel(site, image)


def dilate2d(site: Site) -> Kernel:
    """y = x with stride - 1 zeros between neighbours in a row and in a column."""
    op = site.op
    assert isinstance(op, Dilate2d)
    down, across = op.stride

    def image(rows: _Rows, x: _Maps, y: _Maps) -> None:
        pixel, step = x.pixel, across * x.pixel

        def spread(row: Affine) -> None:
            with rows.k.loop("x", 0, x.columns - 1) as column:
                rows.copy(row, column * pixel, row * down, column * step, pixel)
                rows.zero(row * down, column * step + pixel, step - pixel)
            last = affine(x.columns - 1)
            rows.copy(row, last * pixel, row * down, last * step, pixel)

        with rows.k.loop("y", 0, x.rows - 1) as row:
            spread(row)
            for between in range(1, down):
                rows.zero(row * down + between, affine(0), y.view[2])
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
