"""The weight gradient of a convolution by Winograd's minimal filtering.

dw = G^T [sum over tiles of (B^T d B) * (A dy A^T)] G. Each iteration of the parallel nest computes a part of the
channels by a part of the maps: a block of tiles at a time it transforms data and gradients into scratch memory,
then adds at every point the product [channels x tiles] [tiles x maps] to the sums, which stay in the second-level
cache. The order of the tiles is fixed. winograd_parts.py decides on parts and blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Tile, Vec
from cnnc.backend.kernel.ir import SCRATCH_ALIGNMENT, Affine, Kernel, affine
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.tiles import pixels_for, split
from cnnc.backend.kernels.winograd_parts import Parts, Work, choose_parts
from cnnc.backend.kernels.winograd_tiles import Axis, Run, loop_over, runs
from cnnc.backend.kernels.winograd_transforms import transform_tile
from cnnc.ops.winograd import WinogradWeightGrad
from cnnc.ops.winograd_matrices import Matrix, transposed

LINE = SCRATCH_ALIGNMENT // 4
"""Elements of a cache line. So much is left between the points: else they would meet in the same sets."""

_Block = tuple[Affine, Affine, Affine]
"""The number of a block along images, tile rows and tile columns."""


def winograd_weight_grad(site: Site) -> Kernel:
    """dw [K/B, Kh, Kw, C, B] of dy [N,H',W',K] and x [N,H,W,C]; for B = 1 dw has no last axis."""
    assert isinstance(site.op, WinogradWeightGrad)
    k = KernelBuilder(site.op.name)
    block = site.results[0].layout.block
    arguments = declare(
        k, site, lambda t: (*t.physical, 1) if t is site.results[0] and block == 1 else t.physical
    )
    writer = _WeightGrad(site, site.op, k)
    parts = writer.parts
    data_parts, gradient_parts = parts.counts
    with (
        k.loop("channels", 0, data_parts, parallel=True) as c,
        k.loop("maps", 0, gradient_parts, parallel=True) as m,
    ):
        writer.iteration(arguments.operands, arguments.results[0], (c, m))
    return k.build()


@dataclass(frozen=True)
class _Side:
    """Data or gradients: where they come from, how they are transformed, and the scratch memory they go to.

    The iteration's part is `vectors` vectors from vector `first` on.
    """

    source: BufferHandle
    lanes: int
    vectors: int
    first: Affine
    axes: tuple[Axis, Axis]
    matrices: tuple[Matrix, Matrix]
    scratch: BufferHandle

    @property
    def width(self) -> int:
        """Elements of a tile at a point."""
        return self.vectors * self.lanes

    @property
    def channels(self) -> int:
        return self.source.buffer.shape[3]


class _WeightGrad:
    """Writes one weight gradient."""

    def __init__(self, site: Site, op: WinogradWeightGrad, k: KernelBuilder) -> None:
        dy, x = site.operands
        self.op, self.k, self.target = op, k, site.target
        self.size = (x.shape[2], x.shape[3])
        self.tiling = op.tiling(*self.size)
        self.block = site.results[0].layout.block
        self.map_lanes, self.channel_lanes = min(site.target.lanes, self.block), site.lanes(x.shape[1])
        self.vectors = self.block // self.map_lanes
        work = Work(
            -(-x.shape[1] // self.channel_lanes),
            -(-dy.shape[1] // self.block) * self.vectors,
            self.vectors,
            self.tiling.points,
            (x.shape[0], *self.tiling.counts),
        )
        self.parts: Parts = choose_parts(site.target, work)
        self.blocking = self.parts.blocking
        self.is_one_block = self.blocking.blocks == (1, 1, 1)

    def iteration(
        self, operands: tuple[BufferHandle, ...], dw: BufferHandle, part: tuple[Affine, Affine]
    ) -> None:
        """All that one iteration of the parallel nest does."""
        dy, x = operands
        data, gradients = self._data(x, part[0]), self._gradients(dy, part[1])
        width = data.width * gradients.width
        sums = self.k.scratch("sums", (self.tiling.points, width + LINE))
        if not self.is_one_block:
            self._clear(sums, width)
        with self._blocks() as block:
            self._transform(data, block)
            self._transform(gradients, block)
            self._products(data, gradients, sums)
        self._finish(data, gradients, sums, dw)

    def _data(self, x: BufferHandle, part: Affine) -> _Side:
        """V = B^T d B: tiles overlap, and reach into the padding."""
        rows, columns = self.tiling.axes
        (th, tw), (mh, mw) = self.tiling.counts, self.op.tile
        axes = (
            Axis(th, mh, self.op.pad[0], rows.points, self.size[0]),
            Axis(tw, mw, self.op.pad[1], columns.points, self.size[1]),
        )
        vectors = self.parts.channel_vectors
        scratch = self._scratch("data", vectors * self.channel_lanes)
        matrices = (rows.data, columns.data)
        return _Side(x, self.channel_lanes, vectors, part * vectors, axes, matrices, scratch)

    def _gradients(self, dy: BufferHandle, part: Affine) -> _Side:
        """D = A dy A^T: tiles lie side by side, the last may be cut."""
        rows, columns = self.tiling.axes
        (th, tw), (mh, mw) = self.tiling.counts, self.op.tile
        axes = (Axis(th, mh, 0, mh, self.tiling.size[0]), Axis(tw, mw, 0, mw, self.tiling.size[1]))
        vectors = self.parts.map_vectors
        scratch = self._scratch("gradients", vectors * self.map_lanes)
        matrices = (transposed(rows.result), transposed(columns.result))
        return _Side(dy, self.map_lanes, vectors, part * vectors, axes, matrices, scratch)

    def _scratch(self, name: str, width: int) -> BufferHandle:
        return self.k.scratch(name, (self.tiling.points, self.blocking.tiles * width + LINE))

    def _clear(self, sums: BufferHandle, width: int) -> None:
        zero = self.k.constant(0.0, self.map_lanes)
        with self.k.once_or_loop("p", self.tiling.points) as p:
            with self.k.loop("i", 0, width, self.map_lanes) as i:
                sums.store((p, i), zero)

    @contextmanager
    def _blocks(self) -> Iterator[_Block]:
        images, rows, columns = self.blocking.blocks
        with (
            self.k.once_or_loop("images", images) as n,
            self.k.once_or_loop("rows", rows) as y,
            self.k.once_or_loop("columns", columns) as x,
        ):
            yield n, y, x

    def _transform(self, side: _Side, block: _Block) -> None:
        """Transform a block of tiles, run by run; tiles behind the last are zero."""
        images = Axis(self.blocking.counts[0], 1, 0, 1, self.blocking.counts[0])
        covered = [n * size for n, size in zip(self.blocking.blocks, self.blocking.sizes, strict=True)]

        def nested(axes: tuple[Axis, ...], chosen: tuple[Run, ...]) -> None:
            if not axes:
                self._transform_run(side, block, chosen)
                return
            tiles = covered[len(chosen)]
            is_outside = any(not run.inside for run in chosen)
            for run in (Run(0, tiles, ()),) if is_outside else runs(axes[0], tiles):
                nested(axes[1:], (*chosen, run))

        nested((images, *side.axes), ())

    def _transform_run(self, side: _Side, block: _Block, chosen: tuple[Run, ...]) -> None:
        """Transform the tiles of a block that are in one run along each axis."""
        k, sizes = self.k, self.blocking.sizes
        with (
            loop_over(k, "n", chosen[0], block[0], sizes[0]) as n,
            loop_over(k, "y", chosen[1], block[1], sizes[1]) as y,
            loop_over(k, "x", chosen[2], block[2], sizes[2]) as x,
        ):
            place, tile = (n, y, x), self.blocking.position((n, y, x), block)
            full, rest = divmod(side.channels, side.lanes)
            for first, last, count in ((0, full, side.lanes), (full, full + 1, rest)):
                ...
