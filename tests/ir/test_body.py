"""What stands where in the body of a region."""

from __future__ import annotations

from cnnc.ir.body import anchor_position, prologue_of, source_of
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.types import f32
from cnnc.ops.conv import Conv2d
from cnnc.ops.elementwise import Add, Bias, Relu


def test_a_prologue_in_front_of_the_anchor() -> None:
    b = GraphBuilder("body")
    x, w, bias = b.input("x", f32(1, 3, 4, 4)), b.input("w", f32(3, 3, 1, 1)), b.input("b", f32(3))
    made = b.emit(Relu(), b.emit(Bias(), x, bias))
    body = b.build([b.emit(Relu(), b.emit(Conv2d(), made, w))])
    assert anchor_position(body) == 2
    assert [node.op for node in prologue_of(body, made)] == [Bias(), Relu()]
    assert (source_of(body, made), source_of(body, w)) == (x, w)
    assert prologue_of(body, w) == ()


def test_regions_of_elementwise_nodes_have_none() -> None:
    b = GraphBuilder("body")
    x, y = b.input("x", f32(2)), b.input("y", f32(2))
    body = b.build([b.emit(Relu(), b.emit(Add(), x, y))])
    assert anchor_position(body) == 0 and source_of(body, body.nodes[0].operands[0]) == x
