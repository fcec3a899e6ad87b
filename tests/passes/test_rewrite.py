"""Rewriter: a copy that is left alone is equal, and invented names are free ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from cnnc.errors import ShapeError
from cnnc.ir.graph import Graph
from cnnc.ir.parser import parse_graph
from cnnc.ir.types import f32
from cnnc.ops import OPS
from cnnc.passes.rewrite import Rewriter
from tests.strategies import graphs

CHAIN = """
graph @net(%x: f32[2]; @w: f32[2]) -> (%twice.1) {
  %y: f32[2] = relu(%x) layer(a) loc("net.py":3)
  %twice.1: f32[2] = mul(%y, @w) layer(b) loc("net.py":4)
}"""


@given(graphs())
@settings(max_examples=25, deadline=None)
def test_copying_every_node_gives_an_equal_graph(graph: Graph) -> None:
    rewriter = Rewriter(graph)
    rewriter.declare()
    for node in graph.nodes:
        rewriter.copy(node)
    assert rewriter.finish() == graph


def test_emitted_nodes_take_free_names_and_the_node_s_place() -> None:
    graph = parse_graph(CHAIN, OPS)
    rewriter = Rewriter(graph)
    rewriter.declare()
    first, second = graph.nodes
    doubled = rewriter.emit(first, OPS["add"](), *[rewriter.new[graph.inputs[0]]] * 2, stem="twice")
    again = rewriter.emit(first, OPS["add"](), doubled, doubled, stem="twice")
    rewriter.copy(first, operands=(again,))
    rewriter.copy(second, op=OPS["sub"]())
    rewritten = rewriter.finish()
    assert [n.result.name for n in rewritten.nodes] == ["twice", "twice.2", "y", "twice.1"]
    assert [n.op.name for n in rewritten.nodes] == ["add", "add", "relu", "sub"]
    assert {(n.layer, n.loc) for n in rewritten.nodes[:3]} == {(first.layer, first.loc)}


def test_types_that_no_longer_fit_are_told_at_the_node() -> None:
    graph = parse_graph(CHAIN, OPS)
    rewriter = Rewriter(graph)
    rewriter.declare({graph.inputs[0]: f32(3)})
    rewriter.copy(graph.nodes[0])
    with pytest.raises(ShapeError, match=r"^net\.py:4: mul: operand b is f32\[2\]"):
        rewriter.copy(graph.nodes[1])
