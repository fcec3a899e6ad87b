"""Joined channels and slices lie in one memory; run there, plans give the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Value
from cnnc.ir.layout import CHANNELS_LAST, Layout, row_major
from cnnc.ir.plan import Plan, is_alias
from cnnc.ir.plan_text import parse_plan, print_plan
from cnnc.ir.types import f32
from cnnc.ir.verify_plan import verify_plan
from cnnc.ops import OPS
from cnnc.ops.concat import Concat, Slice
from cnnc.ops.conv import Conv2d
from cnnc.ops.elementwise import Add, Relu
from cnnc.ops.optimizer import SGD
from cnnc.ops.reduce import Sum
from cnnc.passes.append_updates import training_graph
from cnnc.passes.channel_parts import TakesParts
from cnnc.passes.eliminate_dead_code import EliminateDeadCode
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.passes.plan_buffers import plan_buffers
from tests.plan_runner import check_same_bits
from tests.strategies import graphs

MAPS = f32(2, 3, 4, 5)


def channels_last(graph: Graph) -> dict[str, Layout]:
    return {
        v.name: CHANNELS_LAST if v.type.rank == 4 else row_major(v.type.rank) for v in graph.values.values()
    }


def planned(graph: Graph, takes_parts: TakesParts = lambda node, value: True) -> Plan:
    """The verified plan, its maps channels last, which gives the right results and reads back from text."""
    plan = plan_buffers(graph, channels_last(graph), takes_parts=takes_parts)
    verify_plan(plan)
    check_same_bits(graph, plan)
    assert parse_plan(print_plan(plan), OPS) == plan
    return plan


def running(plan: Plan) -> list[str]:
    """Names of the ops of the nodes that run."""
    return [node.op.name for node in plan.graph.nodes if not is_alias(plan, node)]


def layer(b: GraphBuilder, x: Value, maps: int) -> Value:
    """A 3x3 convolution with relu."""
    weight = b.param(b.fresh("w"), f32(maps, x.type.shape[1], 3, 3))
    return b.emit(Relu(), b.emit(Conv2d(pad=(1, 1, 1, 1)), x, weight))


def inception() -> Graph:
    b = GraphBuilder("inception")
    x = layer(b, b.input("x", MAPS), 5)
    joined = b.emit(Concat(), layer(b, x, 3), layer(b, layer(b, x, 2), 7), layer(b, x, 1))
    return b.build([b.emit(Sum((0, 1, 2, 3)), b.emit(Relu(), layer(b, joined, 4)))])


def dense_block(layers: int = 5) -> Graph:
    b = GraphBuilder("dense_block")
    x = layer(b, b.input("x", MAPS), 5)
    for _ in range(layers):
        x = b.emit(Concat(), x, layer(b, b.emit(Relu(), x), 3))
    return b.build([b.emit(Sum((0, 1, 2, 3)), layer(b, x, 4))])


def listed_dense_block(layers: int = 5) -> Graph:
    """The same, every concatenation of all the layers before."""
    b = GraphBuilder("dense_block")
    parts = [layer(b, b.input("x", MAPS), 5)]
    for _ in range(layers):
        x = b.emit(Concat(), *parts) if len(parts) > 1 else parts[0]
        parts.append(layer(b, b.emit(Relu(), x), 3))
    return b.build([b.emit(Sum((0, 1, 2, 3)), layer(b, b.emit(Concat(), *parts), 4))])


def skip_connection() -> Graph:
    b = GraphBuilder("skip")
    early = layer(b, b.input("x", MAPS), 3)
    late = layer(b, layer(b, early, 6), 3)
    return b.build([b.emit(Sum((0, 1, 2, 3)), layer(b, b.emit(Concat(), late, early), 4))])


NETWORKS: tuple[Callable[[], Graph], ...] = (inception, dense_block, listed_dense_block, skip_connection)


@given(graph=graphs(max_steps=14))
@settings(max_examples=150, deadline=None)
def test_random_graphs(graph: Graph) -> None:
    planned(graph)


@given(graph=graphs(max_steps=10), data=st.data())
@settings(max_examples=60, deadline=None)
def test_random_graphs_whose_kernels_take_some_parts(graph: Graph, data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from(sorted({n.op.name for n in graph.nodes} | {"relu"}))))
    planned(graph, lambda node, value: node.op.name not in names)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("fuse", [False, True])
def test_nothing_is_copied(make: Callable[[], Graph], fuse: bool) -> None:
    for graph in (make(), EliminateDeadCode()(training_graph(make(), SGD(momentum=0.9)))):
        plan = planned(FuseEpilogues()(graph) if fuse else graph)
        assert not {"concat", "slice", "relayout"} & set(running(plan))
        assert plan.arena_bytes <= 1.02 * plan.live_bytes_bound


def test_nested_concatenations_are_parts_of_the_last() -> None:
    plan = planned(dense_block(30))
    joined = [n.result for n in plan.graph.nodes if n.op.name == "concat"]
    assert len({plan.placement(v).offset for v in joined}) == 1
    assert plan.placement(joined[-1]).pitch == 0
    assert {plan.placement(v).pitch for v in joined[:-1]} == {4 * (5 + 30 * 3)}


def test_operands_that_cannot_lie_in_the_result_are_copied() -> None:
    b = GraphBuilder("net")
    x = b.input("x", MAPS)
    y = b.emit(Relu(), x)
    joined = b.emit(Concat(), x, y, y, b.param("p", MAPS))
    plan = planned(b.build([layer(b, joined, 2)]))
    assert running(plan).count("relayout") == 3 and "concat" not in running(plan)


def test_a_value_lies_in_one_of_two_concatenations() -> None:
    b = GraphBuilder("net")
    x, y = (b.emit(Relu(), b.input(name, MAPS)) for name in "xy")
    one, other = b.emit(Concat(), x, y), b.emit(Concat(), y, x)
    plan = planned(b.build([b.emit(Add(), layer(b, one, 2), layer(b, other, 2))]))
    assert running(plan).count("concat") == 1


def test_outputs_and_slices_of_inputs_are_copied() -> None:
    b = GraphBuilder("net")
    x = b.input("x", MAPS)
    y = b.emit(Relu(), x)
    plan = planned(b.build([b.emit(Concat(), y, y), b.emit(Relu(), b.emit(Slice(1, 1, 2), x))]))
    assert running(plan) == ["relu", "concat", "slice", "relu"]


def test_a_part_is_overwritten_when_it_is_read_no_more() -> None:
    """The gradient of a block is written over that of the wider one which it is a part of."""
    b = GraphBuilder("net")
    wide = layer(b, b.input("x", MAPS), 16)
    first, rest = b.emit(Slice(1, 0, 12), wide), b.emit(Slice(1, 12, 4), wide)
    part = b.emit(Relu(), first)
    plan = planned(b.build([b.emit(Add(), layer(b, part, 2), layer(b, rest, 2))]))
    assert plan.in_place[part.name] == first.name
    assert plan.placement(part).pitch == 64


def test_a_part_is_not_overwritten_while_its_whole_is_read() -> None:
    b = GraphBuilder("net")
    wide = layer(b, b.input("x", MAPS), 16)
    part = b.emit(Relu(), b.emit(Slice(1, 0, 12), wide))
    plan = planned(b.build([b.emit(Add(), layer(b, part, 2), layer(b, wide, 2))]))
    assert part.name not in plan.in_place


def test_what_holds_parts_itself_is_written_over_a_part() -> None:
    """As the gradient of joined maps, to which each layer's is added, and which is then parted again."""
    b = GraphBuilder("gradients")
    whole = layer(b, b.input("x", MAPS), 8)
    first, last = b.emit(Slice(1, 0, 6), whole), b.emit(Slice(1, 6, 2), whole)
    total = b.emit(Add(), b.emit(Conv2d(pad=(1, 1, 1, 1)), last, b.param("v", f32(6, 2, 3, 3))), first)
    inner = [layer(b, b.emit(Slice(1, start, size), total), 2) for start, size in ((0, 4), (4, 2))]
    graph = FuseEpilogues()(b.build([b.emit(Sum((0, 1, 2, 3)), b.emit(Add(), *inner))]))
    plan = planned(graph)
    assert plan.in_place[total.name] == first.name
    place = plan.placement(total)
    assert (place.offset, place.pitch) == (plan.placement(whole).offset, 4 * 8)
    assert "slice" not in running(plan)
