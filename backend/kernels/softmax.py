"""Softmax over the channels, which must be the fastest axis in memory, its logarithm, and their gradients:
row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cnnc.backend.kernel import math as functions
from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import by_images, reduce_vectors, vectors
from cnnc.backend.kernels.site import Arguments, Site, Tensor, declare
from cnnc.errors import UnsupportedError


@dataclass(frozen=True)
class Row:
    """One row of a buffer seen as [rows, `extent`], in vectors of `lanes`."""

    handle: BufferHandle
    number: Affine
    extent: int
    lanes: int

    def load(self, start: Affine, count: int) -> Vec:
        return self.handle.load((self.number, start), self.lanes, count)

    def padded(self, start: Affine, count: int, padding: float = -math.inf) -> Vec:
        """As `load`, but with `padding` instead of zero in the lanes beyond the row's end."""
        value = self.load(start, count)
        if count == self.lanes:
            return value
        k = self.handle.builder
        return k.compute("select_lt", k.index(start, self.lanes), float(self.extent), value, padding)

    def store(self, start: Affine, value: Vec, count: int) -> None:
        self.handle.store((self.number, start), value, count)

    def maximum(self) -> Vec:
        """The row's largest element in every lane."""
        k = self.handle.builder
        return k.broadcast(
            reduce_vectors(k, self.extent, self.lanes, "max", -math.inf, self.padded), self.lanes
        )


def rows(tensor: Tensor) -> tuple[int, int]:
    """A tensor's memory as [rows, channels]; raises UnsupportedError unless channels are fastest."""
    if tensor.inner_axis != 1 or tensor.layout.block > 1:
        raise UnsupportedError(f"softmax needs the channels to be fastest in memory, not {tensor.layout}")
    return tensor.size // tensor.shape[1], tensor.shape[1]


def softmax(site: Site) -> Kernel:
    """y = exp(x - max x) / sum of those, for every row."""
    k = KernelBuilder(site.op.name)
    arguments = declare(k, site, rows, read_back=(0,))
    lines, channels = rows(site.results[0])
    with by_images(k, site, "row", lines) as row:
        x, y = (
            Row(handle, row, channels, site.lanes(channels))
            for handle in (arguments.operands[0], arguments.results[0])
        )
        scale = store_powers(k, x, y)
        vectors(
            k, channels, x.lanes, lambda start, count: y.store(start, y.load(start, count) * scale, count)
        )
    return k.build()


def store_powers(k: KernelBuilder, x: Row, y: Row, share: Vec | float = 1.0) -> Vec:
    """Stores exp(x - max x) in y and returns `share` / its sum in every lane."""
    top = x.maximum()

    def power(start: Affine, count: int) -> Vec:
        value = functions.exp(k, x.padded(start, count) - top)
        y.store(start, value, count)
        return value

    total = reduce_vectors(k, x.extent, x.lanes, "add", 0.0, power)
    return k.broadcast(k.compute("div", share, total), x.lanes)


def log_softmax(site: Site) -> Kernel:
    """y = x - max x - log of the sum of exp(x - max x), for every row."""
    k = KernelBuilder(site.op.name)
    arguments = declare(k, site, rows)
    lines, channels = rows(site.results[0])
    with by_images(k, site, "row", lines) as row:
        x, y = (
            Row(handle, row, channels, site.lanes(channels))
            for handle in (arguments.operands[0], arguments.results[0])
        )
        top = x.maximum()

        def power(start: Affine, count: int) -> Vec:
            return functions.exp(k, x.padded(start, count) - top)

        total = reduce_vectors(k, channels, x.lanes, "add", 0.0, power)
        shift = top + k.broadcast(functions.log(k, total), x.lanes)
        vectors(
            k, channels, x.lanes, lambda start, count: y.store(start, x.load(start, count) - shift, count)
        )
    return k.build()


def log_softmax_grad(site: Site) -> Kernel:
    """dx = dy - exp(y) * sum of dy, for every row."""
    k = KernelBuilder(site.op.name)
    arguments = declare(k, site, rows)
    lines, channels = rows(site.results[0])
    with by_images(k, site, "row", lines) as row:
        dy, y, dx = (
            Row(handle, row, channels, site.lanes(channels))
            for handle in (*arguments.operands, *arguments.results)
        )
        total = k.broadcast(reduce_vectors(k, channels, y.lanes, "add", 0.0, dy.load), y.lanes)

        def tile(start: Affine, count: int) -> None:
            probability = functions.exp(k, y.load(start, count))
            dx.store(start, dy.load(start, count) - probability * total, count)

        vectors(k, channels, y.lanes, tile)
    return k.build()


def softmax_grad(site: Site) -> Kernel:
    """dx = y * (dy - sum of dy * y), for every row."""
    k = KernelBuilder(site.op.name)
    arguments: Arguments = declare(k, site, rows)
    lines, channels = rows(site.results[0])
    with by_images(k, site, "row", lines) as row:
        dy, y, dx = (
            Row(handle, row, channels, site.lanes(channels))
            for handle in (*arguments.operands, *arguments.results)
        )

        def product(start: Affine, count: int) -> Vec:
            return dy.load(start, count) * y.load(start, count)

        total = k.broadcast(reduce_vectors(k, channels, y.lanes, "add", 0.0, product), y.lanes)

        def tile(start: Affine, count: int) -> None:
            dx.store(start, y.load(start, count) * (dy.load(start, count) - total), count)

        vectors(k, channels, y.lanes, tile)
    return k.build()
