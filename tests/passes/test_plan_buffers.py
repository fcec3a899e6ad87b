"""Buffer plans: run in real memory they give the same bits, and the arena is near its lower bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.errors import CnncError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph
from cnnc.ir.layout import CHANNELS_LAST, Layout, row_major
from cnnc.ir.plan import Plan, Space
from cnnc.ir.plan_text import print_plan
from cnnc.ir.types import f32
from cnnc.ir.verify_plan import verify_plan
from cnnc.ops.conv import Conv2d
from cnnc.ops.elementwise import Add, Map, Mul, Relu
from cnnc.ops.optimizer import SGD, Adam
from cnnc.ops.shape import Flatten, Relayout, Reshape
from cnnc.passes.append_updates import training_graph
from cnnc.passes.eliminate_dead_code import EliminateDeadCode
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.passes.plan_buffers import plan_buffers
from tests.goldens import Goldens, before, cases
from tests.nets import layer, lenet5, residual, tiny_lenet
from tests.plan_runner import check_same_bits
from tests.strategies import graphs


def row_major_layouts(graph: Graph) -> Mapping[str, Layout]:
    return {v.name: row_major(v.type.rank) for v in graph.values.values()}


def planned(graph: Graph, layouts: Mapping[str, Layout] | None = None) -> Plan:
    """The verified plan, which gives the right results."""
    plan = plan_buffers(graph, layouts or row_major_layouts(graph))
    verify_plan(plan)
    check_same_bits(graph, plan)
    return plan


def copies(plan: Plan) -> list[str]:
    """Names of the results of copies in the plan."""
    return [n.result.name for n in plan.graph.nodes if isinstance(n.op, Relayout)]


def training(loss_graph: Graph, fuse: bool = True) -> Graph:
    graph = EliminateDeadCode()(training_graph(loss_graph, Adam()))
    return FuseEpilogues()(graph) if fuse else graph


@pytest.mark.parametrize("case", cases("plan_buffers"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_text(f"plan_buffers/{case}.after.txt", print_plan(planned(before("plan_buffers", case))))


@given(graph=graphs(max_steps=12), data=st.data())
@settings(max_examples=80, deadline=None)
def test_random_graphs_in_random_layouts(graph: Graph, data: st.DataObject) -> None:
    either = st.sampled_from((row_major(4), CHANNELS_LAST, Layout("Abcd4a")))
    layouts = {v.name: data.draw(either) for v in graph.values.values() if v.type.rank == 4}
    planned(graph, {**row_major_layouts(graph), **layouts})


@given(graph=graphs(max_steps=6), data=st.data())
@settings(max_examples=60, deadline=None)
def test_random_updates(graph: Graph, data: st.DataObject) -> None:
    """Params take any value of their type: results, inputs, each other's."""
    b = GraphBuilder.extend(graph)
    first = b.param(b.fresh("first"), graph.outputs[0].type)
    second = b.param(b.fresh("second"), graph.outputs[0].type)
    b.emit(Add(), b.emit(Mul(), first, second), b.emit(Relu(), b.emit(Reshape(first.type.shape), second)))
    whole = b.build(graph.outputs)
    alike = st.sampled_from([v for v in whole.values.values() if v.type == first.type])
    updates = ((first, data.draw(alike)), (second, data.draw(alike)))
    outputs = data.draw(st.lists(alike, unique=True, min_size=1, max_size=3))
    planned(b.build(outputs, (*graph.updates, *updates)))


@pytest.mark.parametrize("make", [tiny_lenet, residual])
@pytest.mark.parametrize("fuse", [False, True])
def test_training_steps(make: Callable[[], Graph], fuse: bool) -> None:
    plan = planned(training(make(), fuse))
    assert not copies(plan)
    assert all(plan.in_place[new.name] == param.name for param, new in plan.graph.updates)


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("fuse", [False, True])
def test_the_arena_of_lenet5_is_near_its_bound(batch: int, fuse: bool) -> None:
    for graph in (lenet5(batch), training(lenet5(batch), fuse)):
        plan = plan_buffers(graph, row_major_layouts(graph))
        verify_plan(plan)
        assert plan.live_bytes_bound <= plan.arena_bytes <= 1.02 * plan.live_bytes_bound


def test_gradients_do_not_wait_for_the_end() -> None:
    """With the updates last all gradients are alive at once, 247 KB at the least. With those of weights fused
    with their gradients, none is ever in memory, and the arena is smaller than the largest."""
    weights, largest = sum(p.type.nbytes for p in lenet5().params), 4 * 120 * 400
    assert largest < planned(training(lenet5(), fuse=False)).arena_bytes < weights
    assert planned(training(lenet5())).arena_bytes < largest


def test_deep_networks_are_planned_well() -> None:
    b = GraphBuilder("deep")
    x = b.input("x", f32(1, 8, 8, 8))
    for block in range(40):
        inner = layer(b, f"c{block}", Conv2d(pad=(1, 1, 1, 1)), x, f32(8, 8, 3, 3), Relu())
        x = b.emit(Relu(), b.emit(Add(), inner, x))
    graph = b.build([x])
    plan = plan_buffers(graph, row_major_layouts(graph))
    assert plan.arena_bytes == plan.live_bytes_bound == 2 * x.type.nbytes


def test_an_elementwise_chain_needs_no_arena() -> None:
    b = GraphBuilder("chain")
    x = b.input("x", f32(100))
    plan = planned(b.build([b.emit(Relu(), b.emit(Relu(), b.emit(Relu(), x)))]))
    assert plan.arena_bytes == 0
    assert {plan.placement(v).space for v in plan.graph.producer} == {Space.OUTPUT}


@pytest.mark.parametrize("is_read_again", [False, True])
def test_an_epilogue_overwrites_what_it_is_the_last_to_read(is_read_again: bool) -> None:
    """The sum of a convolution and its own source's source."""
    b = GraphBuilder("net")
    x, w = b.input("x", f32(1, 2, 4, 4)), b.param("w", f32(2, 2, 1, 1))
    skipped = b.emit(Conv2d(), x, w)
    inner = b.emit(Conv2d(), skipped, w)
    total = b.emit(Add(), b.emit(Conv2d(), inner, w), skipped)
    last = b.emit(Conv2d(), total, w)
    plan = planned(FuseEpilogues()(b.build([b.emit(Add(), last, skipped) if is_read_again else last])))
    assert plan.in_place.get(total.name) == (None if is_read_again else skipped.name)


def test_an_epilogue_does_not_overwrite_what_its_anchor_reads() -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(1, 2, 4, 4)), b.param("w", f32(2, 2, 1, 1))
    source = b.emit(Conv2d(), x, w)
    total = b.emit(Add(), b.emit(Conv2d(), source, w), source)
    plan = planned(FuseEpilogues()(b.build([b.emit(Conv2d(), total, w)])))
    assert total.name not in plan.in_place


def test_a_view_of_another_layout_is_a_copy() -> None:
    b = GraphBuilder("net")
    x = b.input("x", f32(1, 2, 4, 4))
    y = b.emit(Conv2d(), x, b.param("w", f32(2, 2, 1, 1)))
    graph = b.build([b.emit(Conv2d(), b.emit(Reshape((1, 32, 1, 1)), y), b.param("v", f32(2, 32, 1, 1)))])
    layouts = row_major_layouts(graph)
    flat = graph.nodes[1].result.name
    assert planned(graph).in_place[flat] == y.name
    assert planned(graph, {**layouts, flat: CHANNELS_LAST}).in_place[flat] == y.name, "its maps are 1x1"
    assert flat not in planned(graph, {**layouts, y.name: CHANNELS_LAST}).in_place


def test_an_update_that_cannot_wait_is_copied() -> None:
    """The old @w is read by a node that needs the new one, so both must exist at once."""
    b = GraphBuilder("net")
    w = b.param("w", f32(4))
    new = b.emit(Map("a * 0.5"), w)
    plan = planned(b.build([b.emit(Add(), new, w)], [(w, new)]))
    assert copies(plan) == [f"{new.name}.copy"]


def test_an_evaluation_shares_the_params_of_training() -> None:
    train = plan_buffers(training(lenet5(4)), row_major_layouts(training(lenet5(4))))
    graph = lenet5(2)
    plan = plan_buffers(graph, row_major_layouts(graph), train.placements)
    verify_plan(plan)
    assert plan.param_bytes == train.param_bytes
    for param in graph.params:
        assert plan.placement(param) == train.placement(param)
    with pytest.raises(CnncError, match="the fixed param block has no place for 'c1"):
        plan_buffers(graph, row_major_layouts(graph), {})


def test_the_plan_is_the_same_in_every_run() -> None:
    graph = FuseEpilogues()(training_graph(residual(), SGD(momentum=0.9)))
    layouts = row_major_layouts(graph)
    assert print_plan(plan_buffers(graph, layouts)) == print_plan(plan_buffers(graph, layouts))


def test_two_names_of_one_result_are_two_outputs() -> None:
    b = GraphBuilder("net")
    y = b.emit(Relu(), b.input("x", f32(2, 3, 1, 1)))
    plan = planned(b.build([y, b.emit(Flatten(), y)]))
    assert [plan.placement(v).index for v in plan.graph.outputs] == [0, 1]
