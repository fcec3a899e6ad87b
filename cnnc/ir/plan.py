"""The planned graph: where every value of a graph lies in memory, and how.

Made by passes/plan_buffers.py, checked by verify_plan.py, printed by plan_text.py; kernels are
generated from it, one per node that is not a mere alias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from cnnc.ir.graph import Graph, Value
from cnnc.ir.layout import Layout
from cnnc.ir.op import Op, Trait
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
    """

    space: Space
    offset: int
    nbytes: int
    index: int = 0

    @property
    def end(self) -> int:
        """The first byte behind the value."""
        return self.offset + self.nbytes

    def overlaps(self, other: Placement) -> bool:
        """Whether the two share a byte."""
        if (self.space, self.index) != (other.space, other.index):
            return False
        return self.offset < other.end and other.offset < self.end


@dataclass(frozen=True)
class Plan:
    """A graph with a layout and a placement for every value (params and inputs included).

    `in_place` maps a result to the operand (or updated param) whose bytes it takes over. For a
    view that means no kernel is owed; an elementwise node reads each element of all its
    operands before it writes that element of any result. `live_bytes_bound` is the most bytes of arena
    values alive at one time: no arena of these lifetimes can be smaller.
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


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to a multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def is_elementwise(op: Op) -> bool:
    """Whether an op may write over an operand of its result's type: it is elementwise, or has a
    region of nothing but elementwise nodes of one type."""
    bodies = [value for value in op.attributes.values() if isinstance(value, Graph)]
    if not bodies:
        return op.has(Trait.ELEMENTWISE)
    nodes = [node for body in bodies for node in body.nodes]
    return all(is_elementwise(n.op) for n in nodes) and len({v.type for n in nodes for v in n.results}) == 1


def is_dense(layout: Layout, type: TensorType) -> bool:
    """Whether the elements lie in memory in row-major order, up to axes of length 1."""
    axes = [axis for axis in layout.axes if type.shape[axis] > 1]
    return layout.block == 1 and axes == sorted(axes)
