"""Neighbouring pixels as channels of one pixel, and back: space_to_depth and depth_to_space.

Both copy between maps `space` and their blocks `depth`; at the borders a block reaches into the padding,
where one writes zeros and the other nothing. Weights, in blocks of maps, are copied by vectors of these. Of
maps a row of a block is a vector where it lies in memory as such on both sides, else its elements are copied
one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel, affine
from cnnc.backend.kernels.runs import Axis, Run, loop_over, runs
from cnnc.backend.kernels.site import Site, Tensor, declare
from cnnc.errors import UnsupportedError
from cnnc.ops.space_to_depth import DepthToSpace, SpaceToDepth

UNROLL = 4
"""Channels of one iteration of the innermost loop."""


def space_to_depth(site: Site) -> Kernel:
    """y [N,H/bh,W/bw,C*bh*bw] of x, or weights of weights."""
    return _copy(site, site.operands[0], site.results[0])


def depth_to_space(site: Site) -> Kernel:
    """The same the other way round."""
    return _copy(site, site.results[0], site.operands[0])


def _copy(site: Site, space: Tensor, depth: Tensor) -> Kernel:
    """Raises UnsupportedError for layouts with blocks of anything but maps."""
    blocked = {(t.layout.blocked_axis, t.layout.block) for t in (space, depth)}
    if len(blocked) > 1 or blocked.isdisjoint({(None, 1), (0, space.layout.block)}):
        shown = f"{space.layout} and {depth.layout}"
        raise UnsupportedError(f"{site.op.name}: the layouts {shown}; blocks must be alike, and of axis 0")
    k, op = KernelBuilder(site.op.name), site.op
    assert isinstance(op, SpaceToDepth | DepthToSpace)
    arguments = declare(k, site)
    copy = _Copy(k, op, site, space, depth, arguments.operands[0], arguments.results[0])
    copy.nest()
    return k.build()


@dataclass(frozen=True)
class _Copy:
    """A copy from `reader` to `writer`, one of which lies like `space`, the other like `depth`."""

    k: KernelBuilder
    op: SpaceToDepth | DepthToSpace
    site: Site
    space: Tensor
    depth: Tensor
    reader: BufferHandle
    writer: BufferHandle

    @property
    def to_depth(self) -> bool:
        return isinstance(self.op, SpaceToDepth)

    @property
    def maps(self) -> int:
        """Maps of a block, which are copied as vectors; 1 where there are none."""
        return self.depth.layout.block

    @property
    def piece(self) -> int:
        """Elements of a row of a block that lie side by side in both tensors."""
        is_row = self.maps == 1 and self.space.inner_axis == 3 and self.depth.inner_axis == 1
        return self.op.block[1] if is_row else 1

    def nest(self) -> None:
        """Over images or blocks of maps and rows of blocks in parallel, and over runs of blocks that reach
        the same pixels."""
        (down, across), (top, left, _, _) = self.op.block, self.op.pad
        (height, width), (rows, columns) = self.space.shape[2:], self.depth.shape[2:]
        outer, each = self.depth.physical[self.depth.layout.axes.index(0)], self.site.each_image
        with (
            self.k.loop("n", 0, outer, parallel=True, images=each) as n,
            self.k.loop("y", 0, rows, parallel=True) as number,
        ):
            for row in runs(Axis(rows, down, top, down, height), rows):
                with loop_over(self.k, "y", row, number, 1) as y:
                    for column in runs(Axis(columns, across, left, across, width), columns):
                        with loop_over(self.k, "x", column, affine(0), columns) as x:
                            self._block(n, (y, row), (x, column))

    def _block(self, n: Affine, rows: tuple[Affine, Run], columns: tuple[Affine, Run]) -> None:
        """All channels of a block, pieces of its rows that reach the map and pieces that do not."""
        (down, across), (_, row), (_, column) = self.op.block, rows, columns
        piece = self.piece if len(column.inside) == across else 1

        def channel(c: Affine) -> None:
            for p in range(down):
                for q in range(0, across, piece):
                    inside = p in row.inside and q in column.inside
                    if inside or self.to_depth:
                        self._piece((n, c, rows[0], columns[0]), (p, q), piece, inside)

        self.k.unrolled("c", self.space.shape[1], UNROLL, channel)

    def _piece(
        self, block: tuple[Affine, Affine, Affine, Affine], offset: tuple[int, int], length: int, inside: bool
    ) -> None:
        """Some elements from an offset in a row of a block, for one image or the maps of a block."""
        (n, c, y, x), (p, q), (down, across), (top, left, _, _) = block, offset, self.op.block, self.op.pad
        deep = self._place(self.depth, (n, c * (down * across) + (p * across + q), y, x))
        flat = self._place(self.space, (n, c, y * down + (p - top), x * across + (q - left)))
        source, target = (flat, deep) if self.to_depth else (deep, flat)
        extent = max(self.maps, length)
        lanes = self.site.lanes(extent)
        for start in range(0, extent, lanes):
            count = min(lanes, extent - start)
            value: Vec = self.k.constant(0.0, lanes)
            if inside:
                value = self.reader.load((*source[:-1], source[-1] + start), lanes, count)
            self.writer.store((*target[:-1], target[-1] + start), value, count)

    def _place(self, tensor: Tensor, index: tuple[Affine, ...]) -> tuple[Affine, ...]:
        """Physical index of a logical one; along maps in blocks that of a block, and its first map."""
        place = tuple(index[axis] for axis in tensor.layout.axes)
        return place if self.maps == 1 else (*place, affine(0))
