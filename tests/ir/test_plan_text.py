"""The text form of the planned graph: what is printed is read back, equal; mistakes have a line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.errors import FormatError
from cnnc.ir.graph import Graph
from cnnc.ir.layout import CHANNELS_LAST, Layout, row_major
from cnnc.ir.plan_text import parse_plan, print_plan
from cnnc.ir.verify_plan import verify_plan
from cnnc.ops import OPS
from cnnc.passes.plan_buffers import plan_buffers
from tests.strategies import graphs

TEXT = """\
plan arena 128 params 64 bound 128
graph @net(%x: f32[1,2,2,2] acdb input 0; @w: f32[] param 0) -> (%2) {
  %1: f32[1,2,2,2] acdb arena 64 = relu(%x)
  %2: f32[1,2,2,2] acdb output 0 over %1 = mul(%1, @w)
}
"""


@given(graph=graphs(), data=st.data())
@settings(max_examples=50, deadline=None)
def test_what_is_printed_is_read_back(graph: Graph, data: st.DataObject) -> None:
    either = st.sampled_from((row_major(4), CHANNELS_LAST, Layout("Abcd16a"), Layout("aBcd8b")))
    layouts = {
        v.name: data.draw(either) if v.type.rank == 4 else row_major(v.type.rank)
        for v in graph.values.values()
    }
    plan = plan_buffers(graph, layouts)
    again = parse_plan(print_plan(plan), OPS)
    assert again == plan
    verify_plan(again)


def test_a_text_written_by_hand() -> None:
    plan = parse_plan(TEXT, OPS)
    assert print_plan(plan) == TEXT
    assert plan.in_place == {"2": "1"}
    assert plan.layouts["1"] == CHANNELS_LAST
    assert (plan.placements["1"].offset, plan.placements["1"].nbytes) == (64, 32)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("plan arena", "plan area", "t:1: expected 'arena', found 'area'"),
        ("params 64", "params -1", "t:1: expected the bytes of params, found '-1'"),
        ("acdb input", "accb input", "t:2: layout tag 'accb' does not name each axis once"),
        ("acdb input", "abc input", "t:2: the layout 'abc' does not fit f32[1,2,2,2]"),
        ("arena 64 =", "stack 64 =", "t:3: expected one of arena, input, output, param, found 'stack'"),
        ("arena 64 =", "arena 64 pitch =", "t:3: expected the bytes from row to row, found '='"),
        ("arena 64 =", "arena 6.5 =", "t:3: expected a byte or an index, found '6.5'"),
        ("acdb arena 64 =", "=", "t:3: expected a layout, such as acdb, found '='"),
        ("}\n", "} plan", "t:5: expected nothing more after the graph, found 'plan'"),
    ],
)
def test_mistakes_have_a_line(right: str, wrong: str, message: str) -> None:
    with pytest.raises(FormatError) as error:
        parse_plan(TEXT.replace(right, wrong), OPS, "t")
    assert str(error.value) == message
