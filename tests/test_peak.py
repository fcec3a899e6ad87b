"""Peaks of plans: counted against the plan's own bound, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from cnnc.backend.target import TARGETS
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph
from cnnc.ir.plan import aligned
from cnnc.ir.types import f32
from cnnc.ops.concat import Concat, Slice
from cnnc.ops.elementwise import Add, Tanh
from cnnc.ops.reduce import Sum
from cnnc.peak import Profile
from cnnc.pipeline import plan_graph
from tests.strategies import graphs


def test_by_hand() -> None:
    """%a is kept for the sum, %b lies over nothing, %c over %b."""
    builder = GraphBuilder("net")
    x = builder.input("x", f32(4, 64))
    a = builder.emit(Tanh(), x, name="a")
    b = builder.emit(Tanh(), a, name="b")
    c = builder.emit(Add(), a, b, name="c")
    profile = Profile(plan_graph(builder.build([builder.emit(Sum((0,)), c)]), TARGETS["avx2"]))
    np.testing.assert_array_equal(profile.live_bytes, [1024, 2048, 2048, 1024])
    assert profile.peak == 1
    assert [{v.name for v in held.values} for held in profile.held(1)] == [{"a"}, {"b"}]
    assert [held.nbytes for held in profile.held(1)] == [1024, 1024]
    assert sum({"a", "c"} <= {v.name for v in held.values} for held in profile.held(2)) == 1


@given(graphs(max_steps=8))
@settings(max_examples=40, deadline=None)
def test_as_much_is_alive_as_the_plan_says(graph: Graph) -> None:
    """The plan counts whole storages: where some hold several values as parts, less may be alive in them."""
    plan = plan_graph(graph, TARGETS["avx2"])
    profile = Profile(plan)
    held = [profile.held(position) for position in range(len(plan.graph.nodes))]
    assert [sum(h.nbytes for h in pieces) for pieces in held] == list(profile.live_bytes)
    assert profile.live_bytes.max(initial=0) <= plan.live_bytes_bound <= plan.arena_bytes
    if not any(isinstance(node.op, Concat | Slice) for node in plan.graph.nodes):
        rounded = (sum(aligned(h.nbytes) for h in pieces) for pieces in held)
        assert plan.live_bytes_bound == max(rounded, default=0)


@pytest.mark.parametrize("name", ["avx2", "arm64"])
def test_a_graph_without_nodes_needs_nothing(name: str) -> None:
    plan = plan_graph(GraphBuilder("empty").build([]), TARGETS[name])
    assert Profile(plan).live_bytes.size == 0
