"""Concat and slice where the buffer plan could not spare the copy.

A node's tensors lie in memory in one order. Axes outside the joined one are looped over in parallel;
vectors run along the fastest axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import by_images, vectors
from cnnc.backend.kernels.region import Region
from cnnc.backend.kernels.site import Site, Tensor, declare
from cnnc.errors import UnsupportedError
from cnnc.ops.concat import Concat, Slice


def concat(site: Site) -> Kernel:
    """The operands one behind the other; one of them may come more than once."""
    region = Region(site)
    op, count = region.anchor, len(region.body.nodes[0].operands)
    assert isinstance(op, Concat)
    numbers = [region.operand(position) for position in range(count)]
    starts = accumulate((site.operands[number].shape[op.axis] for number in numbers), initial=0)
    ranges = zip(numbers, starts, strict=False)
    return _copy(site, op.axis, [_Range(number, site.operands[number], 0, start) for number, start in ranges])


def take_slice(site: Site) -> Kernel:
    """A range of the operand."""
    op = site.op
    assert isinstance(op, Slice)
    return _copy(site, op.axis, [_Range(0, site.results[0], op.start, 0)])


@dataclass(frozen=True)
class _Range:
    """Of operand `number` as many elements as `like` has, from `first` along the axis in the operand to
    `to_first` in the result."""

    number: int
    like: Tensor
    first: int
    to_first: int


def _copy(site: Site, axis: int, ranges: Sequence[_Range]) -> Kernel:
    """Copies ranges along an axis. Raises UnsupportedError for layouts that differ or have blocks of it."""
    layouts = list(dict.fromkeys(t.layout for t in (*site.operands, *site.results)))
    if len(layouts) > 1 or layouts[0].blocked_axis == axis:
        shown = ", ".join(map(str, layouts))
        raise UnsupportedError(f"{site.op.name}: the layouts {shown}; one without blocks of it is needed")
    k = KernelBuilder(site.op.name)
    arguments = declare(k, site, lambda tensor: _view(tensor, axis))
    target = arguments.results[0]
    with by_images(k, site, "i", target.buffer.shape[0]) as i:
        for each in ranges:
            _, rows, length = _view(each.like, axis)
            step = (0, 1) if each.like.inner_axis == axis else (rows // each.like.shape[axis], 0)
            copy = _Rows(k, i, arguments.operands[each.number], target, rows, length)
            copy.write(
                site.lanes(length), *((at * step[0], at * step[1]) for at in (each.first, each.to_first))
            )
    return k.build()


@dataclass(frozen=True)
class _Rows:
    """`rows` rows of `length` elements that are copied from one buffer to another, at the same `i`."""

    k: KernelBuilder
    i: Affine
    source: BufferHandle
    target: BufferHandle
    rows: int
    length: int

    def write(self, lanes: int, first: tuple[int, int], to_first: tuple[int, int]) -> None:
        """Copy from (row, element) on in the source to (row, element) in the target."""
        with self.k.once_or_loop("row", self.rows) as y:

            def tile(x: Affine, count: int) -> None:
                value = self.source.load((self.i, y + first[0], x + first[1]), lanes, count)
                self.target.store((self.i, y + to_first[0], x + to_first[1]), value, count)

            vectors(self.k, self.length, lanes, tile)


def _view(tensor: Tensor, axis: int) -> tuple[int, int, int]:
    """Memory as [axes outside `axis`, rows, the fastest axis]; one row if that is `axis` itself."""
    *outer, length = tensor.physical
    place = tensor.layout.axes.index(axis)
    return math.prod(outer[:place]), math.prod(outer[place:]), length
