"""Concat and slice where the buffer plan could not spare the copy.

A node's tensors lie in memory in one order. Axes outside the joined one are looped over in parallel;
vectors run along the fastest axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import vectors
from cnnc.backend.kernels.site import Site, Tensor, declare
from cnnc.errors import UnsupportedError
from cnnc.ops.concat import Concat, Slice


def concat(site: Site) -> Kernel:
    """The operands one behind the other."""
    op = site.op
    assert isinstance(op, Concat)
    starts = accumulate((x.shape[op.axis] for x in site.operands), initial=0)
    return _copy(site, op.axis, site.operands, [(0, start) for start in starts])


def take_slice(site: Site) -> Kernel:
    """A range of the operand."""
    op = site.op
    assert isinstance(op, Slice)
    return _copy(site, op.axis, site.results, [(op.start, 0)])


def _copy(site: Site, axis: int, like: Sequence[Tensor], starts: Sequence[tuple[int, int]]) -> Kernel:
    """Copies a range of each operand: as long as the tensor in `like`, from one start along the axis in
    the operand to one in the result. Raises UnsupportedError for layouts that differ or have blocks."""
    layouts = list(dict.fromkeys(t.layout for t in (*site.operands, *site.results)))
    if len(layouts) > 1 or layouts[0].block > 1:
        shown = ", ".join(map(str, layouts))
        raise UnsupportedError(f"{site.op.name}: the layouts {shown}; one without blocks is needed")
    k = KernelBuilder(site.op.name)
    arguments = declare(k, site, lambda tensor: _view(tensor, axis))
    target = arguments.results[0]
    with k.loop("i", 0, target.buffer.shape[0], parallel=True) as i:
        for source, tensor, (first, to_first) in zip(arguments.operands, like, starts, strict=False):
            _, rows, length = _view(tensor, axis)
            if layouts[0].axes[-1] == axis:
                _copy_rows(k, i, (source, 0, first), (target, 0, to_first), (rows, length), site)
            else:
                between = rows // tensor.shape[axis]
                places = (source, first * between, 0), (target, to_first * between, 0)
                _copy_rows(k, i, *places, (rows, length), site)
    return k.build()


def _copy_rows(
    k: KernelBuilder,
    i: Affine,
    source: tuple[BufferHandle, int, int],
    target: tuple[BufferHandle, int, int],
    size: tuple[int, int],
    site: Site,
) -> None:
    """Copy `size` rows and elements of a row, from and to (buffer, first row, first element)."""
    (reader, row, start), (writer, to_row, to_start) = source, target
    lanes = site.lanes(size[1])
    with k.once_or_loop("row", size[0]) as y:

        def tile(x: Affine, count: int) -> None:
            writer.store((i, y + to_row, x + to_start), reader.load((i, y + row, x + start), lanes, count), count)

        vectors(k, size[1], lanes, tile)


def _view(tensor: Tensor, axis: int) -> tuple[int, int, int]:
    """Memory as [axes outside `axis`, rows, the fastest axis]; one row if that is `axis` itself."""
    *outer, length = tensor.physical
    place = tensor.layout.axes.index(axis)
    return math.prod(outer[:place]), math.prod(outer[place:]), length
