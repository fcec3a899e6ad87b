"""Within the first step of the buffer plan: which values lie inside the rows of a wider one.

Where channels are innermost in memory, the pixels of a concatenation hold those of its operands side by
side. So the operands are written there in the first place, and a slice is read where it lies. Of nested
concatenations the widest gives the memory, and the others are parts of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import accumulate

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.layout import CHANNELS_LAST, Layout
from cnnc.ir.op import Trait
from cnnc.ops.shape import Relayout
from cnnc.passes.rewrite import Rewriter

TakesParts = Callable[[Node, Value], bool]
"""Whether a node's kernel reads or writes that value also where it lies inside a wider one."""


@dataclass(frozen=True)
class Part:
    """The channels of `whole` from `channel` on; `whole` is no part of another value."""

    whole: Value
    channel: int


@dataclass(frozen=True)
class Partition:
    """Which values lie inside others.

    `parts` has those values, and the wholes as parts of themselves. `aliases` are the results that are
    there when their operands are. `movable` are the values that may lie inside others, if they do or not.
    """

    parts: Mapping[Value, Part]
    aliases: Set[Value]
    movable: Set[Value]


def settle_parts(
    graph: Graph, layouts: Mapping[str, Layout], apart: Set[Value], takes_parts: TakesParts
) -> tuple[Graph, Mapping[str, Layout], Partition]:
    """Decide which values lie inside others, and add a copy (a `relayout`) for an operand of a
    concatenation that cannot, if another can. Values in `apart` keep memory of their own.

    %3 = concat(%1, %2)     ->  %1 and %2 lie in the first and last channels of %3
    %4 = concat(%3, %x)     ->  %5 = relayout(%x);  %4 = concat(%3, %5);  %1, %2, %3 and %5 lie in %4
    %6 = slice(%4)          ->  %6 lies in %4
    """
    movable = frozenset(v for v in graph.producer if _is_movable(graph, layouts, v, takes_parts)) - apart
    decisions = _Decisions(graph, layouts, apart, movable)
    for node in reversed(graph.nodes):
        decisions.visit(node)
    rewriter = Rewriter(graph)
    rewriter.declare()
    for node in graph.nodes:
        copies = decisions.copy_operands(rewriter, node) if node.results[0] in decisions.copied else {}
        rewriter.copy(
            node, operands=tuple(copies.get(i, rewriter.new[o]) for i, o in enumerate(node.operands))
        )
    tags = {value.name: CHANNELS_LAST for value in decisions.parent}
    partition = Partition(decisions.parts(), frozenset(decisions.aliases), movable)
    return rewriter.finish(), {**layouts, **tags}, partition


def _is_movable(graph: Graph, layouts: Mapping[str, Layout], value: Value, takes_parts: TakesParts) -> bool:
    """Whether the kernels that write and read a value could do so inside another."""
    touching = [graph.producer[value], *(graph.nodes[i] for i in graph.users[value])]
    return _has_rows(layouts, value) and all(takes_parts(node, value) for node in touching)


def _has_rows(layouts: Mapping[str, Layout], value: Value) -> bool:
    """Whether its pixels are rows of channels."""
    return value.type.rank == 4 and layouts[value.name] == CHANNELS_LAST


@dataclass
class _Decisions:
    """What is known when nodes have been visited, the last first: so the widest come first.

    `parent` says of a value in which other it lies and from which channel on, `copied` of a node which of
    its operands need a copy.
    """

    graph: Graph
    layouts: Mapping[str, Layout]
    apart: Set[Value]
    movable: Set[Value]
    parent: dict[Value, Part] = field(default_factory=dict)
    aliases: set[Value] = field(default_factory=set)
    copied: dict[Value, tuple[int, ...]] = field(default_factory=dict)

    def visit(self, node: Node) -> None:
        """Decide about a node that joins or takes channels."""
        moves = node.op.has(Trait.JOIN) or node.op.has(Trait.PART)
        if not moves or node.op.attributes["axis"] != 1 or node.result in self.apart:
            return
        if not all(_has_rows(self.layouts, v) for v in (*node.operands, node.result)):
            return
        if node.op.has(Trait.PART):
            self._take_part(node)
        elif not self._is_there(node):
            self._join(node)

    def _take_part(self, node: Node) -> None:
        """A slice lies in its operand, unless its own place is elsewhere."""
        whole, start = node.operands[0], node.op.attributes["start"]
        is_free = node.result in self.movable and node.result not in self.parent
        if is_free and whole in self.graph.producer and whole not in self.apart:
            assert isinstance(start, int)
            self.parent[node.result] = Part(whole, start)
            self.aliases.add(node.result)

    def _is_there(self, node: Node) -> bool:
        """Whether the operands lie side by side in a wider value, which then holds the result as well."""
        if node.result in self.parent or node.result not in self.movable:
            return False
        first, places = self._part(node.operands[0]), zip(node.operands, _channels(node), strict=True)
        wanted = [Part(first.whole, first.channel + channel) for _, channel in places]
        if first.whole == node.operands[0] or [self._part(o) for o in node.operands] != wanted:
            return False
        self.parent[node.result] = first
        self.aliases.add(node.result)
        return True

    def _join(self, node: Node) -> None:
        """Let the operands lie in the result; one that cannot will be copied there."""
        places = list(zip(node.operands, _channels(node), strict=True))
        free = [
            number
            for number, (operand, _) in enumerate(places)
            if operand in self.movable
            and operand not in self.parent
            and node.operands.index(operand) == number
        ]
        if not free:
            return
        self.parent.update({places[i][0]: Part(node.result, places[i][1]) for i in free})
        self.copied[node.result] = tuple(i for i in range(len(places)) if i not in free)
        self.aliases.add(node.result)

    def copy_operands(self, rewriter: Rewriter, node: Node) -> Mapping[int, Value]:
        """Emit the copies that a node needs; each by the number of its operand."""
        copies: dict[int, Value] = {}
        channels = _channels(node)
        for number in self.copied[node.results[0]]:
            operand, same = (
                rewriter.new[node.operands[number]],
                Relayout(CHANNELS_LAST.tag, CHANNELS_LAST.tag),
            )
            copies[number] = rewriter.emit(node, same, operand, stem=f"{operand.name}.part")
            self.parent[copies[number]] = Part(node.results[0], channels[number])
        return copies

    def parts(self) -> Mapping[Value, Part]:
        """Where every part lies in the widest value, and these values themselves."""
        found = {value: self._part(value) for value in self.parent}
        return {**found, **{part.whole: Part(part.whole, 0) for part in found.values()}}

    def _part(self, value: Value) -> Part:
        """Where a value lies; one that is no part of another is its own."""
        channel = 0
        while value in self.parent:
            channel, value = channel + self.parent[value].channel, self.parent[value].whole
        return Part(value, channel)


def _channels(node: Node) -> Sequence[int]:
    """The first channel of each operand among those of all."""
    sizes = [operand.type.shape[1] for operand in node.operands]
    return list(accumulate(sizes[:-1], initial=0))
