"""Mistakes in a hand-written graph: one line with the place, what was expected, what was found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.errors import FormatError
from cnnc.ir.parser import MAX_NESTING, parse_graph
from cnnc.ops import OPS

HEAD = "graph @g(%x: f32[1,2,4,4]; @w: f32[3,2,3,3]) -> (%y) {\n"

MISTAKES = {
    # text: message, at the line the text reaches
    "": (1, "expected 'graph', found the end of the text"),
    "graph g": (1, "expected the graph's name, such as @net, found 'g'"),
    "graph @g %x": (1, "expected '(', found '%x'"),
    "graph @g(@x: f32[1])": (1, "expected an input, such as %x: f32[1,3,8,8], found '@x'"),
    "graph @g(; %w: f32[1])": (1, "expected a param, such as @w: f32[8], found '%w'"),
    "graph @g(%x f32[1])": (1, "expected ':', found 'f32'"),
    "graph @g(%x: f16[1])": (1, "expected a dtype (f32, f64, i32), found 'f16'"),
    "graph @g(%x: f32[1.5])": (1, "expected an integer, found '1.5'"),
    "graph @g(%x: f32[n])": (1, "expected an integer, found 'n'"),
    "graph @g(%x: f32[99999999999999999999])": (1, "the integer 99999999999999999999 does not fit 64 bits"),
    "graph @g(%x: f32[1], %x: f32[1])": (1, "%x is already defined"),
    "graph @g(%x: f32[1]; @x: f32[1])": (1, "@x is already defined"),
    "graph @g() -> (%y) {\n}": (1, "%y is not defined here"),
    "graph @g() -> () {": (1, "expected '}', found the end of the text"),
    "graph @g() -> () {\n}\n}": (3, "expected nothing more after the graph, found '}'"),
    "graph @g() -> () {\n  $\n}": (2, "unexpected character '$'"),
    'graph @g() -> () {\n  %"a\n}': (2, "unexpected character '%'"),
    r'graph @"\q"() -> () { }': (1, r'malformed string "\q": Invalid \escape'),
    HEAD + "  %y: f32[1] = rleu(%x)": (2, "unknown op 'rleu'; did you mean 'relu'?"),
    HEAD + "  %y: f32[1] relu(%x)": (2, "expected '=', found 'relu'"),
    HEAD + "  %y: f32[1] = relu(%z)": (2, "%z is not defined here"),
    HEAD + "  %y: f32[1] = relu(%w)": (2, "%w is not defined here; did you mean '@w'?"),
    HEAD + "  %y: f32[1] = relu(%y)": (2, "%y is not defined here"),
    HEAD + "  %y: f32[1] = relu(%x, 3)": (2, "expected an operand, such as %1, found '3'"),
    HEAD + "  %y: f32[1] = relu(%x %x)": (2, "expected ')', found '%x'"),
    HEAD + "  %x: f32[1] = relu(%x)": (2, "%x is already defined"),
    HEAD + "  %y: f32[1], %y: f32[1] = relu(%x)": (2, "%y is already defined"),
    HEAD + "  %y: f32[1] = conv2d(%x, @w) {strid=(1,1)}": (
        2,
        "conv2d has no attribute 'strid'; did you mean 'stride'?",
    ),
    HEAD + "  %y: f32[1] = conv2d(%x, @w) {\n  stride=1}": (
        3,
        "conv2d: attribute stride must be tuple[int, int]: 1 is not a tuple",
    ),
    HEAD + "  %y: f32[1] = conv2d(%x, @w) {stride=(1,2,3)}": (
        2,
        "conv2d: attribute stride must be tuple[int, int]: (1, 2, 3) does not have 2 items",
    ),
    HEAD + "  %y: f32[1] = conv2d(%x, @w) {stride=(1,1.0)}": (
        2,
        "conv2d: attribute stride must be tuple[int, int]: 1.0 is not of type int",
    ),
    HEAD + "  %y: f32[1] = conv2d(%x, @w) {groups=true}": (
        2,
        "conv2d: attribute groups must be int: True is not of type int",
    ),
    HEAD + "  %y: f32[1] = conv2d(%x, @w) {groups=1, groups=1}": (
        2,
        "conv2d: attribute groups is given twice",
    ),
    HEAD + "  %y: f32[1] = conv2d(%x, @w) {groups=}": (
        2,
        "expected a number, a string, true, false, a tuple of these or a graph, found '}'",
    ),
    HEAD + "  %y: f32[1] = reshape(%x)": (2, "reshape: attribute shape is missing"),
    HEAD + '  %y: f32[1] = map(%x) {f="a +"}': (2, "map: "),
    HEAD + "  %y: f32[1] = relu(%x) layer[c]": (2, "expected '(', found '['"),
    HEAD + "  %y: f32[1] = relu(%x) loc(net.py:3)": (
        2,
        "expected a file name in quotes, such as \"net.py\", found 'net.py'",
    ),
    HEAD + "  %y: f32[1] = relu(%x)\n  update @v = %y }": (3, "@v is not defined here"),
    HEAD + "  %y: f32[1] = relu(%x)\n  update @w %y }": (3, "expected '=', found '%y'"),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_told_at_its_line(text: str) -> None:
    line, message = MISTAKES[text]
    with pytest.raises(FormatError) as caught:
        parse_graph(text, OPS, "net.txt")
    assert str(caught.value).startswith(f"net.txt:{line}: {message}")
    assert "\n" not in str(caught.value)


def test_deep_nesting_is_refused() -> None:
    start = "graph @g(%x: f32[2]) -> (%y) { %y: f32[2] = fused(%x) {body="
    with pytest.raises(FormatError, match=f"nested more than {MAX_NESTING} deep"):
        parse_graph(start * 5000, OPS)


@given(st.text(alphabet='graph @%x:f32[]();->{}=relu,"\\01.e-\n#', max_size=80))
@settings(max_examples=200, deadline=None)
def test_no_text_gives_another_error(text: str) -> None:
    try:
        parse_graph("graph @g(%x: f32[2]) -> (%x) {" + text, OPS)
    except FormatError as error:
        assert str(error).startswith("<text>:")
