"""A site: one node of the plan as a kernel writer sees it, and where logical coordinates lie in memory.

Made by backend/lower.py, consumed by the kernel functions in this folder, each of which turns a
Site into a Kernel whose buffers are the site's operands in order, then its results. A result that
takes over an operand's memory shares that operand's buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from cnnc.backend.kernel.builder import BufferHandle, Coordinate, KernelBuilder
from cnnc.backend.kernel.ir import Access
from cnnc.backend.target import Target
from cnnc.errors import UnsupportedError
from cnnc.ir.layout import Layout
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType


@dataclass(frozen=True)
class Tensor:
    """An operand or result: its logical type and how it lies in memory.

    Inside the rows of a wider tensor it has a `pitch`: the elements from the beginning of one row of its
    fastest axis to the next. Such a tensor is no stretch of memory; rows must not be run together.
    """

    type: TensorType
    layout: Layout
    pitch: int = 0

    @property
    def is_dense(self) -> bool:
        """Whether its elements lie in memory without gaps."""
        return not self.pitch

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape."""
        return self.type.shape

    @property
    def physical(self) -> tuple[int, ...]:
        """Shape in memory."""
        return self.layout.physical_shape(self.type.shape)

    @property
    def inner_axis(self) -> int | None:
        """The logical axis that runs fastest in memory, None for a scalar."""
        if self.layout.blocked_axis is not None:
            return self.layout.blocked_axis
        return self.layout.axes[-1] if self.layout.axes else None

    @property
    def size(self) -> int:
        """Elements in memory, padding included."""
        return math.prod(self.physical)

    @property
    def order(self) -> tuple[tuple[int, ...], int | None, int]:
        """How elements are ordered in memory: layouts that differ only in axes of length 1 agree."""
        long = tuple(a for a in self.layout.axes if self.shape[a] > 1 or a == self.layout.blocked_axis)
        return long, self.layout.blocked_axis, self.layout.block

    def seen_as(self, type: TensorType, layout: Layout) -> Tensor:
        """The same memory under another type and layout. Raises UnsupportedError if rows of a tensor with a
        pitch would be run together."""
        seen = replace(self, type=type, layout=layout)
        if not self.is_dense and seen.physical[-1] != self.physical[-1]:
            raise UnsupportedError(
                f"rows of {self.type}, which lie in a wider tensor, cannot be run together"
            )
        return seen

    def place(self, index: Sequence[Coordinate]) -> tuple[Coordinate, ...]:
        """Physical index of a logical one; only for layouts without blocks."""
        assert self.layout.block == 1, f"{self.layout} has blocks"
        return tuple(index[axis] for axis in self.layout.axes)


@dataclass(frozen=True)
class Site:
    """An op, its tensors and the target; `in_place` maps a result's number to an operand's.

    `images` is how many images axis 0 of the results counts where fewer may be asked for, and 0 where all are
    always computed. The kernel then marks a parallel loop as one over images, if it can. With `exact_images`
    it must, one image to an iteration, and touch no others: operands or results are arrays of the caller.

    `streamed` are the numbers of results that begin at a cache line, are large and are read much later: they
    go past the caches.
    """

    op: Op
    operands: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    target: Target
    in_place: Mapping[int, int] = field(default_factory=dict)
    images: int = 0
    exact_images: bool = False
    streamed: frozenset[int] = frozenset()

    @property
    def each_image(self) -> int:
        """What a loop is marked with (builder.py's `images`) whose iterations are one image each."""
        return min(self.images, 1)

    def lanes(self, extent: int) -> int:
        """Vector width for a dimension of `extent`: the target's, or the next power of two above it."""
        lanes = self.target.lanes
        while lanes > 1 and lanes // 2 >= extent:
            lanes //= 2
        return lanes


@dataclass(frozen=True)
class Arguments:
    """The buffers of a site's kernel: one handle per operand and per result."""

    operands: tuple[BufferHandle, ...]
    results: tuple[BufferHandle, ...]


def declare(
    k: KernelBuilder,
    site: Site,
    view: Callable[[Tensor], Sequence[int]] = attrgetter("physical"),
    read_back: Collection[int] = (),
) -> Arguments:
    """Declare the site's buffers: operands `p0`, `p1`, ..., results `r0`, `r1`, ...

    `view` gives the shape under which the kernel sees a tensor's memory, of as many elements; the last
    dimension of one with a pitch must stay. The kernel may also read what it has stored in the results of the
    numbers `read_back`. Raises UnsupportedError if rows of a tensor with a pitch would be run together.
    """

    def buffer(name: str, tensor: Tensor, access: Access) -> BufferHandle:
        shape = tuple(view(tensor))
        if not tensor.is_dense and shape[-1:] != tensor.physical[-1:]:
            raise UnsupportedError(f"{site.op.name}: rows that lie in a wider tensor cannot be run together")
        return k.buffer(name, shape, access, tensor.type.dtype, tensor.pitch)

    def written(number: int) -> Access:
        if number in read_back:
            return Access.READWRITE
        return Access.STREAM if number in site.streamed else Access.WRITE

    taken = set(site.in_place.values())
    operands = tuple(
        buffer(f"p{i}", t, Access.READWRITE if i in taken else Access.READ)
        for i, t in enumerate(site.operands)
    )
    results = tuple(
        operands[site.in_place[i]] if i in site.in_place else buffer(f"r{i}", t, written(i))
        for i, t in enumerate(site.results)
    )
    return Arguments(operands, results)


def channel_tiles(extent: int, lanes: int) -> tuple[tuple[int, int], ...]:
    """`extent` cut into vectors: (start, count) pairs, the last with fewer elements than `lanes`."""
    return tuple((start, min(lanes, extent - start)) for start in range(0, extent, lanes))
