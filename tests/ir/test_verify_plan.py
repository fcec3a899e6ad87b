"""The verifier of plans rejects every plan whose run would find something overwritten."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.errors import VerifyError
from cnnc.ir.plan import Placement, Space
from cnnc.ir.plan_text import parse_plan
from cnnc.ir.verify_plan import verify_plan
from cnnc.ops import OPS

TEXT = """\
plan arena 256 params 128 bound 128
graph @net(%x: f32[2,3] ab input 0; @w: f32[2,3] ab param 0, @v: f32[3,3] ab param 64) -> (%6) {
  %1: f32[2,3] ab arena 0 = relu(%x) loc("net.py":7)
  %2: f32[2,3] ab arena 64 = dense(%1, @v)
  %3: f32[2,3] ab arena 64 over %2 = add(%2, %1)
  %4: f32[6] a arena 64 over %3 = reshape(%3) {shape=(6,)}
  %5: f32[6] a arena 0 = tanh(%4)
  %6: f32[2,3] ab output 0 = mul(%3, @w)
  %7: f32[2,3] ab param 0 over @w = add(@w, %1)
  update @w = %7
}
"""
RIGHT = TEXT.replace("arena 0 = tanh", "arena 128 = tanh")


def test_a_right_plan_passes() -> None:
    verify_plan(parse_plan(RIGHT, OPS))


def test_a_value_is_overwritten_before_its_last_reader() -> None:
    with pytest.raises(VerifyError, match="add %7 reads '1', which is overwritten by then"):
        verify_plan(parse_plan(TEXT, OPS))


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("arena 128 = tanh", "arena 32 = tanh", "'5' lies at offset 32, which is no multiple of 64"),
        ("arena 128 = tanh", "arena 256 = tanh", "'5' ends at byte 280 of arena, which has 256"),
        ("arena 128 = tanh", "arena 64 = tanh", "tanh %5 writes '5' over '4', which it reads"),
        ("arena 128 = tanh", "arena 64 over %4 = tanh", "mul %6 reads '3', which is overwritten by then"),
        ("arena 128 = tanh", "input 0 = tanh", "tanh %5 writes to an input"),
        ("arena 128 = tanh", "param 64 = tanh", "tanh %5 writes to a param that it is no update of"),
        ("arena 64 = dense", "arena 0 over %1 = dense", "dense %2 writes '2' over '1', which it reads"),
        ("arena 64 over %2 =", "arena 64 =", "add %3 writes '3' over '2', which it reads"),
        ("ab arena 64 over %2 =", "ba arena 64 over %2 =", "add %3: '3' does not cover '2' exactly"),
        ("a arena 64 over %3 =", "a arena 192 over %3 =", "the view '4' does not lie where '3' does"),
        ("output 0 =", "arena 192 =", "'6' must be output 0, not arena 0 at byte 192"),
        ("input 0;", "arena 192;", "'x' must be input 0, not arena 0 at byte 192"),
        ("param 64)", "arena 192)", "the param 'v' lies at arena 0 at byte 192"),
        ("param 64)", "param 0)", "the params 'w' and 'v' overlap"),
        ("param 0 over @w =", "arena 192 =", "the new value '7' does not lie where 'w' does"),
        ("param 0 over @w =", "param 0 =", "add %7 writes '7' over 'w', which it reads"),
        ("bound 128", "bound 320", "320 bytes live at a time cannot fit an arena of 256"),
    ],
)
def test_broken_rules(right: str, wrong: str, message: str) -> None:
    assert right in RIGHT
    with pytest.raises(VerifyError) as error:
        verify_plan(parse_plan(RIGHT.replace(right, wrong), OPS))
    assert error.value.message == message


def test_the_user_s_line_is_named() -> None:
    broken = RIGHT.replace("arena 0 = relu", "input 0 = relu")
    with pytest.raises(VerifyError, match=r"net\.py:7: relu %1 writes '1' over 'x', which it reads"):
        verify_plan(parse_plan(broken, OPS))


def test_an_updated_param_must_not_be_read_any_more() -> None:
    lines = RIGHT.splitlines()
    update = lines.pop(8)
    early = "\n".join([*lines[:3], update, *lines[3:]])
    with pytest.raises(VerifyError, match="mul %6 reads 'w', which is overwritten by then"):
        verify_plan(parse_plan(early, OPS))


def test_a_view_of_blocks_needs_a_copy() -> None:
    text = RIGHT.replace("ab arena 64", "ba arena 64")
    with pytest.raises(VerifyError, match="the view '4' is not dense, so it needs a copy"):
        verify_plan(parse_plan(text, OPS))


PARTS = """\
plan arena 256 params 64 bound 128
graph @net(%x: f32[1,2,2,2] acdb input 0; @w: f32[2,2,1,1] abcd param 0) -> (%6) {
  %1: f32[1,2,2,2] acdb arena 0 pitch 24 = relu(%x)
  %2: f32[1,4,2,2] acdb arena 8 pitch 24 = concat(%x, %x) {axis=1}
  %3: f32[1,6,2,2] acdb arena 0 over %1 = concat(%1, %2) {axis=1}
  %4: f32[1,2,2,2] acdb arena 16 pitch 24 over %3 = slice(%3) {axis=1, start=4, size=2}
  %5: f32[1,2,2,2] acdb arena 16 pitch 24 over %4 = relu(%4)
  %6: f32[1,2,2,2] acdb output 0 = add(%1, %5)
}
"""


def test_parts_lie_beside_each_other() -> None:
    verify_plan(parse_plan(PARTS, OPS))


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("arena 8 pitch 24", "arena 4 pitch 24", "concat %3 reads '1', which is overwritten by then"),
        ("arena 8 pitch 24", "arena 8 pitch 32", "concat %3 reads '1', which is overwritten by then"),
        ("arena 8 pitch 24", "arena 32 pitch 24", "'2' does not lie in its place inside '3'"),
        ("arena 8 pitch 24", "arena 128", "'2' does not lie in its place inside '3'"),
        ("arena 8 pitch 24", "arena 8 pitch 12", "'2' has rows of 16 bytes, not 16 every 12"),
        ("arena 8 pitch 24", "arena 10 pitch 24", "'2' lies at offset 10, which is no multiple of 4"),
        ("arena 8 pitch 24", "arena 240 pitch 24", "'2' ends at byte 328 of arena, which has 256"),
        (
            "arena 16 pitch 24 over %3",
            "arena 12 pitch 24 over %3",
            "'4' does not lie in its place inside '3'",
        ),
        ("abcd param 0", "abcd param 0 pitch 8", "'w' is the caller's, it cannot lie inside another value"),
        (
            "abcd param 0",
            "Abcd2a param 0 pitch 64",
            "'w' has a pitch, which f32[2,2,1,1] in 'Abcd2a' cannot have",
        ),
        ("add(%1, %5)", "add(%1, %4)", "add %6 reads '4', which is overwritten by then"),
    ],
)
def test_broken_rules_of_parts(right: str, wrong: str, message: str) -> None:
    assert right in PARTS
    with pytest.raises(VerifyError) as error:
        verify_plan(parse_plan(PARTS.replace(right, wrong), OPS))
    assert error.value.message == message


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_rows_meet_where_they_share_a_byte(data: st.DataObject) -> None:
    pitch = data.draw(st.integers(1, 12))
    one, other = (
        Placement(Space.ARENA, data.draw(st.integers(0, 60)), rows * row, 0, row, pitch)
        for rows, row in ((data.draw(st.integers(1, 6)), data.draw(st.integers(1, pitch))) for _ in range(2))
    )
    bytes_of = [
        {place.offset + i * pitch + j for i in range(place.rows) for j in range(place.row)}
        for place in (one, other)
    ]
    assert one.overlaps(other) == other.overlaps(one) == bool(bytes_of[0] & bytes_of[1])
    assert one.end == max(bytes_of[0]) + 1


UPDATE = """\
plan arena 64 params 128 bound 64
graph @net(%dy: T ab input 0, %x: T ab input 1; @w: f32[3,3] ab param 0, @v: f32[3,3] ab param 64) -> () {
  %1: f32[3,3] ab param 0 over @w = fused(%dy, %x, @w) {body=graph @u(%0: T, %1: T, %2: f32[3,3]) -> (%4) {
    %3: f32[3,3] = dense_weight_grad(%0, %1)
    %4: f32[3,3] = add(%2, %3)
  }}
  update @w = %1
}
"""


def test_an_update_may_be_written_over_what_its_epilogue_reads() -> None:
    verify_plan(parse_plan(UPDATE.replace("T", "f32[2,3]"), OPS))


def test_an_update_must_not_be_written_over_what_its_anchor_reads() -> None:
    square = UPDATE.replace("T", "f32[3,3]").replace("fused(%dy, %x, @w)", "fused(%dy, @w, @v)")
    with pytest.raises(VerifyError, match="fused %1 writes '1' over 'w', which it reads"):
        verify_plan(parse_plan(square, OPS))


def test_a_contraction_may_be_written_over_what_its_epilogue_alone_reads() -> None:
    square = UPDATE.replace("T", "f32[3,3]").replace("dense_weight_grad", "dense")
    verify_plan(parse_plan(square, OPS))
    with pytest.raises(VerifyError, match="fused %1 writes '1' over 'w', which it reads"):
        verify_plan(parse_plan(square.replace("fused(%dy, %x, @w)", "fused(%dy, @w, @v)"), OPS))


def test_other_anchors_write_over_nothing() -> None:
    normalized = UPDATE.replace("T", "f32[3,3]").replace("dense_weight_grad", "softmax_grad")
    with pytest.raises(VerifyError, match="fused %1 writes '1' over 'w', which it reads"):
        verify_plan(parse_plan(normalized, OPS))
