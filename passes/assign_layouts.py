"""Gives every value a physical layout and adds the `relayout` copies that layouts owe.

Stands behind fusion and before the buffer plan. What kernels want reaches it as data: a function
from a node's types to the layouts its kernel reads and writes (the backend's layouts.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.layout import CHANNELS_LAST, Layout, row_major
from cnnc.ir.op import Op
from cnnc.ir.plan import is_dense
from cnnc.ir.types import TensorType
from cnnc.ops.shape import Relayout
from cnnc.passes.rewrite import Rewriter

NOTHING_FIXED: Mapping[str, Layout] = MappingProxyType({})


@dataclass(frozen=True)
class LayoutRule:
    """What a kernel wants: a layout per operand, None where any will do, and one per result."""

    operands: tuple[Layout | None, ...]
    results: tuple[Layout, ...]


@dataclass(frozen=True)
class Tensors:
    """A node's types and the layouts its operands have so far; None for a param still free."""

    operands: tuple[TensorType, ...]
    layouts: tuple[Layout | None, ...]
    results: tuple[TensorType, ...]


RuleBook = Callable[[Op, Tensors], LayoutRule]


@dataclass(frozen=True)
class LaidOut:
    """A graph and the layout of each of its values."""

    graph: Graph
    layouts: Mapping[str, Layout]


def assign_layouts(graph: Graph, rules: RuleBook, fixed: Mapping[str, Layout] = NOTHING_FIXED) -> LaidOut:
    """Walk the nodes in order: a param takes the layout its first reader wants, and keeps it between
    runs; any other value that a reader wants otherwise is copied once for all such readers.

    Inputs and outputs are row-major, as callers have them. `fixed` gives params the layouts that
    another graph chose for them.

    %1 = conv2d(%x, @w)           %1 = conv2d(%x, @w)         @w: Acdb16a, %1: acdb
    graph (...) -> (%1)     ->    %1.abcd = relayout(%1) {source=acdb, target=abcd}
                                  graph (...) -> (%1.abcd)
    """
    walk = _Walk(graph, rules, dict(fixed))
    for node in graph.nodes:
        walk.node(node)
    return walk.finish()


@dataclass
class _Walk:
    """The state of one walk over the old graph; `layouts` is keyed by names of the new one."""

    graph: Graph
    rules: RuleBook
    layouts: dict[str, Layout]
    copies: dict[tuple[Value, Layout], Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rewriter = Rewriter(self.graph)
        self.rewriter.declare()
        for value in self.graph.inputs:
            self.layouts[value.name] = _callers_layout(value.type)

    def node(self, node: Node) -> None:
        """Copy a node, its operands as its kernel wants them."""
        operands = [self.rewriter.new[o] for o in node.operands]
        known = tuple(self.layouts.get(o.name) for o in operands)
        types = tuple(o.type for o in operands)
        rule = self.rules(node.op, Tensors(types, known, tuple(r.type for r in node.results)))
        fitted = [self._fitted(node, o, wanted) for o, wanted in zip(operands, rule.operands, strict=True)]
        self.rewriter.copy(node, operands=tuple(fitted) or None)
        for result, layout in zip(node.results, rule.results, strict=True):
            self.layouts[result.name] = layout

    def _fitted(self, node: Node, value: Value, wanted: Layout | None) -> Value:
        current = self.layouts.get(value.name)
        if current is None:
            self.layouts[value.name] = wanted or row_major(value.type.rank)
            return value
        if wanted is None or wanted == current:
            return value
        if (value, wanted) not in self.copies:
            op = Relayout(current.tag, wanted.tag)
            copy = self.rewriter.emit(node, op, value, stem=f"{value.name}.{wanted.tag}")
            self.layouts[copy.name] = wanted
            self.copies[value, wanted] = copy
        return self.copies[value, wanted]

    def finish(self) -> LaidOut:
        """The outputs made row-major, the updates given their params' layouts."""
        for param in self.graph.params:
            self.layouts.setdefault(param.name, row_major(param.type.rank))
        for value in self.graph.outputs:
            producer = self.graph.producer.get(value)
            if producer is not None and not is_dense(self.layouts[value.name], value.type):
                self._replace(value, producer, row_major(value.type.rank))
        for param, value in self.graph.updates:
            producer = self.graph.producer.get(value)
            if producer is not None and self.layouts[value.name] != self.layouts[param.name]:
                self._replace(value, producer, self.layouts[param.name])
        graph = self.rewriter.finish()
        return LaidOut(graph, MappingProxyType({n: self.layouts[n] for n in graph.values}))

    def _replace(self, value: Value, producer: Node, layout: Layout) -> None:
        """Let outputs and updates name a copy of `value` in that layout."""
        self.rewriter.new[value] = self._fitted(producer, self.rewriter.new[value], layout)


def _callers_layout(type: TensorType) -> Layout:
    """Row-major, by its channels-last name where memory is the same under both."""
    channels_last = type.rank == 4 and is_dense(CHANNELS_LAST, type)
    return CHANNELS_LAST if channels_last else row_major(type.rank)


def first_full(
    types: Sequence[TensorType], layouts: Sequence[Layout | None], shape: tuple[int, ...]
) -> Layout:
    """The first layout already decided among the tensors of `shape`, else row-major."""
    decided = (layout for type, layout in zip(types, layouts, strict=True) if type.shape == shape and layout)
    return next(decided, row_major(len(shape)))
