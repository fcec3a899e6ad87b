"""Text form of the planned graph: the graph's, with layout and place behind the type of every value.

    plan arena 37632 params 832 bound 37632
    graph @net(%image: f32[1,1,32,32] abcd input 0; @c1.weight: f32[6,1,5,5] abcd param 0) -> (%2) {
      %1: f32[1,6,28,28] acdb arena 18816 = conv2d(%image, @c1.weight) {stride=(1,1), groups=1}
      %2: f32[1,6,28,28] acdb output 0 over %1 = relu(%1)
    }

The number is the byte in the arena or in the block of params, or says which input or output. A value
inside the rows of a wider one has `pitch 64` behind it, the bytes from one row to the next. `over`
names the value whose place is taken over. A scalar has no layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cnnc.ir.graph import Value
from cnnc.ir.layout import Layout, row_major
from cnnc.ir.lexer import Token, Tokens
from cnnc.ir.op import Op
from cnnc.ir.parser import GraphParser
from cnnc.ir.plan import Placement, Plan, Space
from cnnc.ir.printer import print_graph, print_value

_BLOCKS = (Space.ARENA, Space.PARAM)
"""The spaces in which a place is told by its offset, in the others by its index."""


def print_plan(plan: Plan) -> str:
    """The plan as text, with a newline at the end."""
    params = frozenset(p.name for p in plan.graph.params)

    def annotate(value: Value) -> str:
        place, source = plan.placement(value), plan.in_place.get(value.name)
        number = f"{place.offset if place.space in _BLOCKS else place.index}"
        number += f" pitch {place.pitch}" if place.pitch else ""
        layout = f" {plan.layout(value)}" if value.type.rank else ""
        over = f" over {print_value(plan.graph.values[source], params)}" if source else ""
        return f"{layout} {place.space.value} {number}{over}"

    head = f"plan arena {plan.arena_bytes} params {plan.param_bytes} bound {plan.live_bytes_bound}"
    return f"{head}\n{print_graph(plan.graph, annotate)}"


def parse_plan(text: str, ops: Mapping[str, type[Op]], filename: str = "<text>") -> Plan:
    """The plan that `text` describes: `parse_plan(print_plan(p), ops) == p`.

    Raises FormatError, placed at `filename:line`, which says what was expected. Whether the plan
    is right is for verify_plan.py to say.
    """
    tokens = Tokens(text, filename)
    tokens.expect("plan")
    sizes = [_size(tokens, word) for word in ("arena", "params", "bound")]
    parser = _PlanParser(tokens, ops)
    graph = parser.graph()
    tokens.take("end", "nothing more after the graph")
    return Plan(graph, parser.layouts, parser.placements, parser.in_place, *sizes)


def _size(tokens: Tokens, word: str) -> int:
    """`arena 37632`."""
    tokens.expect(word)
    return _number(tokens, f"the bytes of {word}")


def _number(tokens: Tokens, expected: str) -> int:
    token = tokens.take("number", expected)
    if not token.text.isdecimal():
        raise tokens.error(f"expected {expected}, found {token.text!r}", token)
    return int(token.text)


class _PlanParser(GraphParser):
    """Reads a graph, and what stands behind the types of its own values."""

    def __init__(self, tokens: Tokens, ops: Mapping[str, type[Op]]) -> None:
        super().__init__(tokens, ops)
        self.layouts: dict[str, Layout] = {}
        self.placements: dict[str, Placement] = {}
        self.in_place: dict[str, str] = {}

    def _declaration(self, sigil: str, expected: str) -> tuple[Token, Value]:
        """`%1: f32[8] a arena 64 over %0`; in regions `%1: f32[8]`."""
        token, value = super()._declaration(sigil, expected)
        if self._depth > 1:
            return token, value
        layout = self._layout(value)
        space = self._space()
        number = _number(self._tokens, "a byte or an index")
        offset, index = (number, 0) if space in _BLOCKS else (0, number)
        self.layouts[value.name] = layout
        place = Placement(space, offset, layout.nbytes(value.type), index)
        self.placements[value.name] = self._pitched(place, layout, value)
        if self._tokens.accept("over"):
            source = self._tokens.take("name", "the value whose place is taken over, such as %1")
            self.in_place[value.name] = self._name(source)
        return token, value

    def _pitched(self, place: Placement, layout: Layout, value: Value) -> Placement:
        """`pitch 64`, if it stands there."""
        if not self._tokens.accept("pitch"):
            return place
        pitch = _number(self._tokens, "the bytes from row to row")
        row = layout.physical_shape(value.type.shape)[-1:] or (1,)
        return replace(place, row=row[0] * value.type.numpy.itemsize, pitch=pitch)

    def _layout(self, value: Value) -> Layout:
        """`acdb`; nothing for a scalar."""
        if value.type.rank == 0:
            return row_major(0)
        token = self._tokens.take("word", "a layout, such as acdb")
        try:
            layout = Layout(token.text)
        except ValueError as error:
            raise self._tokens.error(str(error), token) from None
        if len(layout.axes) != value.type.rank:
            raise self._tokens.error(f"the layout {token.text!r} does not fit {value.type}", token)
        return layout

    def _space(self) -> Space:
        """`arena`, `input`, `output` or `param`."""
        words = [space.value for space in Space]
        token = self._tokens.take("word", f"one of {', '.join(words)}")
        if token.text not in words:
            raise self._tokens.error(f"expected one of {', '.join(words)}, found {token.text!r}", token)
        return Space(token.text)
