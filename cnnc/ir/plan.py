"""The planned graph: where every value of a graph lies in memory, and how.

Made by passes/plan_buffers.py, checked by verify_plan.py, printed by plan_text.py; kernels are
generated from it, one per node that is not a mere alias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from cnnc.ir.body import anchor_position, source_of
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.layout import Layout
from cnnc.ir.op import Trait
from cnnc.ir.types import TensorType

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register. Every placement starts on a multiple."""


class Space(Enum):
    """The memory a value lies in; the value is the word the text form uses."""

    ARENA = "arena"
    INPUT = "input"
    OUTPUT = "output"
    PARAM = "param"


@dataclass(frozen=True)
class Placement:
    """`nbytes` bytes at byte `offset` of a space.

    Arena and params are one block each, and `index` is 0. Every input and every output is a
    buffer of its own: `index` is its place in the graph's inputs or outputs, `offset` is 0.

    A value that lies inside the rows of a wider one has a `pitch`: its bytes are cut into rows of
    `row` bytes, of which one begins `pitch` bytes behind the one before. Both are 0 elsewhere.
    """

    space: Space
    offset: int
    nbytes: int
    index: int = 0
    row: int = 0
    pitch: int = 0

    @cached_property
    def end(self) -> int:
        """The first byte behind the value."""
        return self.offset + (self.rows - 1) * self.pitch + (self.row or self.nbytes)

    @property
    def rows(self) -> int:
        """How many rows there are; a value without a pitch is one."""
        return self.nbytes // self.row if self.pitch else 1

    def overlaps(self, other: Placement) -> bool:
        """Whether the two share a byte; of two with different pitches, whether their extents do."""
        if self.space is not other.space or self.index != other.index:
            return False
        if self.offset >= other.end or other.offset >= self.end:
            return False
        return self.pitch != other.pitch or not self.pitch or self._rows_meet(other)

    def _rows_meet(self, other: Placement) -> bool:
        """Whether row i of this and row j of `other` share a byte for some i - j = m, pitches being equal."""
        ahead = other.offset - self.offset
        least = (ahead - self.row) // self.pitch + 1
        most = -((-ahead - other.row) // self.pitch) - 1
        return max(least, 1 - other.rows) <= min(most, self.rows - 1)


@dataclass(frozen=True)
class Plan:
    """A graph with a layout and a placement for every value (params and inputs included).

    `in_place` maps a result to the operand (or updated param) whose bytes it takes over. For a
    view, for operands joined and for a part of an operand that means no kernel is owed (`is_alias`);
    a node that `may_write_over` an operand reads each element of it before it writes that element of any
    result. `live_bytes_bound` is the most bytes of arena values alive at one time: no arena of these
    lifetimes can be smaller.
    """

    graph: Graph
    layouts: Mapping[str, Layout]
    placements: Mapping[str, Placement]
    in_place: Mapping[str, str]
    arena_bytes: int
    param_bytes: int
    live_bytes_bound: int

    def layout(self, value: Value) -> Layout:
        """How the value's elements are ordered in memory."""
        return self.layouts[value.name]

    def placement(self, value: Value) -> Placement:
        """Where the value's bytes are."""
        return self.placements[value.name]


def is_alias(plan: Plan, node: Node) -> bool:
    """Whether a node's result is there already, where its operands lie, so that no kernel is owed.

    Of operands joined, `in_place` names the first.
    """
    moves_nothing = any(node.op.has(trait) for trait in (Trait.VIEW, Trait.JOIN, Trait.PART))
    return moves_nothing and node.result.name in plan.in_place


def part_of(whole: Placement, layout: Layout, type: TensorType, start: int, size: int) -> Placement:
    """The place of `size` elements from `start` on along the fastest axis of a value of that place,
    layout and type; the layout has no blocks."""
    item, width = type.numpy.itemsize, type.shape[layout.axes[-1]]
    if size == width:
        return whole
    nbytes = type.nbytes // width * size
    pitch = whole.pitch or width * item
    return replace(whole, offset=whole.offset + start * item, nbytes=nbytes, row=size * item, pitch=pitch)


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to a multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def may_write_over(node: Node, value: Value) -> bool:
    """Whether a node may write a result over `value`, which has the result's type, as it runs: it does not
    read it, or every element only before it writes that element. So do elementwise nodes, regions of them
    of one type, and regions whose anchor has the trait UPDATE or is a contraction, but for what the anchor
    reads."""
    bodies = [body for body in node.op.attributes.values() if isinstance(body, Graph)]
    if not bodies:
        return node.op.has(Trait.ELEMENTWISE)
    (body,) = bodies
    position = anchor_position(body)
    anchor, epilogue = body.nodes[position], body.nodes[position + 1 :]
    maps = [n for n in epilogue if not n.op.has(Trait.SUMS)]
    if not all(n.op.has(Trait.ELEMENTWISE) for n in maps):
        return False
    if len({v.type for n in (anchor, *maps) for v in n.results}) > 1:
        return False
    if anchor.op.has(Trait.ELEMENTWISE):
        return True
    inside = {source_of(body, operand) for operand in anchor.operands}
    read = {o for o, own in zip(node.operands, body.inputs, strict=True) if own in inside}
    return any(anchor.op.has(trait) for trait in (Trait.UPDATE, Trait.CONTRACTION)) and value not in read


def is_dense(layout: Layout, type: TensorType) -> bool:
    """Whether the elements lie in memory in row-major order, up to axes of length 1."""
    axes = [axis for axis in layout.axes if type.shape[axis] > 1]
    return layout.block == 1 and axes == sorted(axes)
