"""The weight gradient of a convolution by Winograd's minimal filtering.

dw = G^T [sum over tiles of (B^T d B) * (A dy A^T)] G. Each iteration of the parallel nest computes a part of
the channels by a part of the maps: a block of tiles at a time it transforms data and gradients into scratch
memory, then adds at every point the product [channels x tiles] [tiles x maps] to sums that stay in the
second-level cache. The order of the tiles is fixed. winograd_parts.py decides on parts and blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.arrays import as_arrays
from cnnc.backend.kernels.fetch import Fetcher, apart
from cnnc.backend.kernels.prologue import Loader
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.tiles import pixels_for, split
from cnnc.backend.kernels.winograd_order import Order, Place
from cnnc.backend.kernels.winograd_parts import Parts, Work, choose_parts
from cnnc.backend.kernels.winograd_sides import Side, Transformer
from cnnc.backend.kernels.winograd_tiles import data_axes, result_axes
from cnnc.backend.kernels.winograd_transforms import Steps, transform_tile
from cnnc.ops.partial import Partial, parts_of
from cnnc.ops.winograd import WinogradWeightGrad
from cnnc.ops.winograd_matrices import Algorithm, transposed

UNROLL = 2
"""Tiles of one iteration of the innermost loop."""


def winograd_weight_grad(site: Site) -> Kernel:
    """dw [K/B, Kh, Kw, C, B] of dy [N,H',W',K] and x [N,H,W,C], with its epilogue; of groups of images with
    one more axis in front."""
    region, dw = Region(site), site.results[0]
    block = dw.layout.block
    maps = {region.operand(i): region.anchor_tensor(i).physical for i in (0, 1)}
    weights = dw.physical if block > 1 else (*dw.physical, 1)
    return _WeightGrad(site, as_arrays(site, weights, maps), block).build()


class _WeightGrad:
    """Writes one weight gradient."""

    def __init__(self, site: Site, arrays: Site, block: int) -> None:
        op, (dy, x) = Region(site).anchor, (Region(site).anchor_tensor(i) for i in (0, 1))
        assert isinstance(op, WinogradWeightGrad)
        self.op, self.target, self.region = op, site.target, Region(arrays)
        self.k = KernelBuilder(self.region.body.name if self.region.epilogue else op.name)
        self.tiling, self.groups = op.tiling(*x.shape[2:]), parts_of(op)
        self.block, self.lanes = block, min(site.target.lanes, block)
        self.vectors = block // self.lanes
        self.arguments = declare(self.k, arrays)
        self.dy, self.x = (Loader.of(self.k, self.region, self.arguments, i) for i in (0, 1))
        self.channel_lanes = site.lanes(x.shape[1])
        work = Work(
            -(-x.shape[1] // self.channel_lanes),
            -(-dy.shape[1] // self.block) * self.vectors,
            self.vectors,
            self.tiling,
            x.shape[0] // self.groups,
            self.groups,
        )
        self.parts: Parts = choose_parts(site.target, work)
        self.blocking = self.parts.blocking
        self.order = Order(self.tiling, self.blocking)
        self.is_one_block = self.blocking.blocks == (1, 1, 1)

    def build(self) -> Kernel:
        k, (channel_parts, map_parts) = self.k, self.parts.counts
        with (
            k.once_or_loop("group", self.groups, parallel=True) as group,
            k.once_or_loop("channels", channel_parts, parallel=True) as channels,
            k.once_or_loop("maps", map_parts, parallel=True) as maps,
        ):
            image = group * self.parts.work.images
            self._iteration(self._data(channels, image), self._gradients(maps, image), group)
        return self.k.build()

    def _iteration(self, data: Side, gradients: Side, group: Affine) -> None:
        """All that an iteration of the parallel nest does."""
        size = data.width * gradients.width
        sums = self.k.scratch("sums", (self.tiling.points, apart(size)))
        transformer = Transformer(self.k, self.order, Fetcher.of(self.k))
        if not self.is_one_block:
            self._clear(sums, size)
        with self._blocks() as block:
            for side in (data, gradients):
                transformer.fetch(side, block)
                transformer.transform(side, block)
            self._multiply(data, gradients, sums)
        self._finish(data, gradients, sums, group)

    def _data(self, part: Affine, image: Affine) -> Side:
        """V = B^T d B: tiles overlap, and reach into the padding."""
        axes = data_axes(self.tiling, self.op.pad, self.x.handle.buffer.shape[1:3])
        vectors, parts = self.parts.channel_vectors, self.parts.counts[0]
        scratch = self._scratch("data", vectors * self.channel_lanes)
        return Side(
            self.x,
            self.channel_lanes,
            vectors,
            parts,
            part,
            image,
            axes,
            lambda algorithm: algorithm.data_steps,
            scratch,
        )

    def _gradients(self, part: Affine, image: Affine) -> Side:
        """D = A dy A^T: tiles lie side by side, the last may be cut."""
        axes = result_axes(self.tiling)
        vectors, parts = self.parts.map_vectors, self.parts.counts[1]
        scratch = self._scratch("gradients", vectors * self.lanes)

        def matrices(algorithm: Algorithm) -> Steps:
            return (transposed(algorithm.result),)

        return Side(self.dy, self.lanes, vectors, parts, part, image, axes, matrices, scratch)

    def _scratch(self, name: str, width: int) -> BufferHandle:
        """[P,T*width]."""
        return self.k.scratch(name, (self.tiling.points, apart(self.blocking.tiles * width)))

    def _clear(self, sums: BufferHandle, size: int) -> None:
        zero = self.k.constant(0.0, self.lanes)
        with self.k.once_or_loop("p", self.tiling.points) as p, self.k.loop("i", 0, size, self.lanes) as i:
            sums.store((p, i), zero)

    @contextmanager
    def _blocks(self) -> Iterator[Place]:
        images, rows, columns = self.blocking.blocks
        with (
            self.k.once_or_loop("images", images) as n,
            self.k.once_or_loop("rows", rows) as y,
            self.k.once_or_loop("columns", columns) as x,
        ):
            yield n, y, x

    def _multiply(self, data: Side, gradients: Side, sums: BufferHandle) -> None:
        """Add the products of a block of tiles to the sums, a register tile of channels by maps at a time."""
        rows = min(data.width, data.channels)
        sizes = split(rows, pixels_for(self.target, rows, self.vectors))
        k = self.k
        for stretch in self.order.stretches:
            with (
                self.order.each_point(k, stretch) as p,
                k.once_or_loop("block", gradients.vectors // self.vectors) as block,
            ):
                first = 0
                for size in dict.fromkeys(sizes):
                    count = sizes.count(size)
                    with k.once_or_loop("tile", count) as tile:
                        corner = (p, tile * size + first, block * self.block)
                        self._register_tile(data, gradients, sums, corner, size, stretch.tiles)
                    first += count * size

    def _register_tile(
        self, data: Side, gradients: Side, sums: BufferHandle, corner: Place, rows: int, tiles: range
    ) -> None:
        """The products of `rows` channels by a block of maps; `corner` is the point, first channel and map.

        They are added up over some tiles of a block first, then to the sums: so errors stay small.
        """
        k, lanes, (p, channel, first_map) = self.k, self.lanes, corner
        acc = k.register("acc", lanes, (rows, self.vectors))

        def step(tile: Affine) -> None:
            start = tile * gradients.width + first_map
            factors = [gradients.scratch.load((p, start + v * lanes), lanes) for v in range(self.vectors)]
            for i in range(rows):
                value = data.scratch.splat((p, tile * data.width + channel + i), lanes)
                for v, factor in enumerate(factors):
                    acc[i, v] = k.fma(value, factor, acc[i, v])

        k.unrolled("t", len(tiles), UNROLL, lambda t: step(t + tiles.start))
        for i in range(rows):
            for v in range(self.vectors):
                place = (p, (channel + i) * gradients.width + first_map + v * lanes)
                total = acc[i, v] if self.is_one_block else acc[i, v] + sums.load(place, lanes)
                sums.store(place, total)

    def _finish(self, data: Side, gradients: Side, sums: BufferHandle, group: Affine) -> None:
        """dw = G^T [sums] G for every channel and vector of maps of the part."""
        k, lanes, blocks = self.k, self.lanes, gradients.vectors // self.vectors
        rows, columns = ((transposed(axis.filter),) for axis in self.tiling.axes)
        outer = (group,) if isinstance(self.op, Partial) else ()
        with (
            k.loop("channel", 0, (data.width, data.channels - data.first)) as channel,
            k.once_or_loop("block", blocks) as block,
            k.once_or_loop("v", self.vectors) as v,
        ):
            start = channel * gradients.width + block * self.block + v * lanes

            def load(i: int, j: int) -> Vec:
                return sums.load((i * len(columns[0][0]) + j, start), lanes)

            def store(r: int, s: int, value: Vec) -> None:
                number = gradients.part * blocks + block
                weight = point(*outer, number, r, s, data.first + channel, v * lanes)
                Epilogue(k, self.region, self.arguments).finish({weight: value}, lanes)

            transform_tile(k, rows, columns, lanes, load, store)
