"""Peaks of plans: counted against the plan's own bound, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from cnnc.backend.target import TARGETS
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph
from cnnc.ir.plan import ALIGNMENT
from cnnc.ir.types import f32
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
def test_no_more_is_alive_than_the_plan_says(graph: Graph) -> None:
    plan = plan_graph(graph, TARGETS["avx2"])
    profile = Profile(plan)
    most = int(profile.live_bytes.max(initial=0))
    assert most <= plan.live_bytes_bound <= plan.arena_bytes
    assert plan.live_bytes_bound < most + ALIGNMENT * max(len(profile.held(profile.peak)), 1) or most == 0
    for position in range(len(plan.graph.nodes)):
        assert sum(held.nbytes for held in profile.held(position)) == profile.live_bytes[position]


@pytest.mark.parametrize("name", ["avx2", "arm64"])
def test_a_graph_without_nodes_needs_nothing(name: str) -> None:
    plan = plan_graph(GraphBuilder("empty").build([]), TARGETS[name])
    assert Profile(plan).live_bytes.size == 0
