"""Lowering: programs do what their graphs say, kernels are shared, operands kept apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Access
from cnnc.backend.lower import lower_unpacking
from cnnc.backend.target import TARGETS
from cnnc.errors import UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph
from cnnc.ir.location import Location
from cnnc.ir.op import Op
from cnnc.ir.plan import Space
from cnnc.ir.types import f32
from cnnc.ops.conv import Conv2d
from cnnc.ops.dense import Dense
from cnnc.ops.elementwise import Add, Map, Mul, Relu
from cnnc.ops.optimizer import SGD, Adam
from cnnc.ops.shape import Constant, Flatten, Relayout
from cnnc.passes.append_updates import initial_states
from cnnc.pipeline import Compilation, compile_graph, inference_passes, training_passes
from tests.nets import draw, residual, tiny_lenet
from tests.program_runner import check_program
from tests.strategies import graphs

AVX2 = TARGETS["avx2"]


def compiled(graph: Graph) -> Compilation:
    """Planned as it stands, without passes that would change its nodes."""
    return compile_graph(graph, (), AVX2)


@given(graph=graphs(regions=False))
@settings(max_examples=40, deadline=None)
def test_random_graphs(graph: Graph) -> None:
    batch = graph.inputs[0].type.shape[0]
    check_program(compile_graph(graph, inference_passes(batch), AVX2).program, graph)


@pytest.mark.parametrize("make", [tiny_lenet, residual])
def test_networks(make: Callable[[], Graph]) -> None:
    graph = make()
    check_program(compile_graph(graph, inference_passes(2), AVX2).program, graph)


@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.1, momentum=0.9, weight_decay=0.01), Adam()], ids=["sgd", "adam"]
)
def test_training_steps(optimizer: SGD | Adam) -> None:
    compilation = compile_graph(tiny_lenet(), training_passes(2, optimizer), AVX2)
    stages = {stage.name: stage.graph for stage in compilation.stages}
    states = initial_states(stages["differentiate"].params, optimizer)
    check_program(compilation.program, stages["append_updates"], states)


@pytest.mark.parametrize("op", [Mul(), Add(), Map("max(a, b) - a")], ids=lambda op: str(op.name))
@pytest.mark.parametrize("dies", [True, False], ids=["in place", "apart"])
def test_an_operand_may_come_twice(op: Op, dies: bool) -> None:
    """Also where the result takes over the operand's memory."""
    b = GraphBuilder("twice")
    h = b.emit(Relu(), b.input("x", f32(2, 3, 5, 5)))
    twice = b.emit(op, h, h)
    outputs = [b.emit(Relu(), twice)] if dies else [b.emit(Relu(), twice), h]
    program = compiled(b.build(outputs)).program
    check_program(program, b.build(outputs))
    assert all(len(set(call.arguments)) == len(call.arguments) for call in program.calls)


def test_a_contraction_of_a_value_with_itself() -> None:
    b = GraphBuilder("gram")
    x = b.input("x", f32(4, 6))
    graph = b.build([b.emit(Dense(), x, x)])
    check_program(compiled(graph).program, graph)


def test_a_param_may_be_read_in_two_layouts_and_be_an_output() -> None:
    b = GraphBuilder("shared")
    x, w = b.input("x", f32(1, 3, 7, 7)), b.param("w", f32(5, 3, 3, 3))
    y = b.emit(Conv2d(), x, w)
    graph = b.build([y, b.emit(Map("a * 2.0"), w), w], [(w, b.emit(Map("a * 0.5"), w))])
    check_program(compiled(graph).program, graph)


def test_params_may_be_updated_with_each_other() -> None:
    b = GraphBuilder("swap")
    x, v, w = b.input("x", f32(1, 3, 7, 7)), b.param("v", f32(5, 3, 3, 3)), b.param("w", f32(5, 3, 3, 3))
    graph = b.build([b.emit(Conv2d(), x, w)], [(v, w), (w, v)])
    check_program(compiled(graph).program, graph)


def test_equal_nodes_share_a_kernel_and_views_owe_none() -> None:
    b = GraphBuilder("chain")
    h = b.input("x", f32(1, 3, 6, 6))
    for number in range(4):
        h = b.emit(Conv2d(pad=(1, 1, 1, 1)), h, b.param(f"w{number}", f32(3, 3, 3, 3)))
    h = b.emit(Relu(), b.emit(Flatten(), b.emit(Relu(), h)))
    program = compiled(b.build([h])).program
    names = [call.node.op.name for call in program.calls if call.node]
    assert "flatten" not in names
    convolutions = {call.kernel for call in program.calls if call.node and call.node.op.name == "conv2d"}
    assert names.count("conv2d") == 4
    assert len(convolutions) == 2, "the first reads the caller's layout, the others share one"
    assert len(program.kernels) < len(program.calls)


def test_calls_carry_proofs_and_work() -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(1, 3, 6, 6)), b.param("w", f32(8, 3, 3, 3))
    program = compiled(b.build([b.emit(Conv2d(), x, w)])).program
    convolution = next(c for c in program.calls if c.node and c.node.op.name == "conv2d")
    assert convolution.proof.accesses > 0 and convolution.proof.conflicts > 0
    assert convolution.flops == 2 * 8 * 3 * 9 * 16 + 4 * (3 * 36 + 8 * 27 + 8 * 16)


@pytest.mark.parametrize(("channels", "l2_bytes"), [(16, 100), (9, 50), (16, 1024)])
def test_results_that_no_cache_would_keep_go_past_the_caches(channels: int, l2_bytes: int) -> None:
    """By second-level caches far smaller than the results, and one that is not; the last result is the
    caller's."""
    b = GraphBuilder("chain")
    h = b.input("x", f32(2, channels, 8, 8))
    for number in range(5):
        h = b.emit(Conv2d(pad=(1, 1, 1, 1)), h, b.param(f"w{number}", f32(channels, channels, 3, 3)))
    graph = b.build([h])
    program = compile_graph(graph, (), replace(AVX2, l2_bytes=l2_bytes)).program
    check_program(program, graph)
    is_small = program.plan.arena_bytes > 64 * l2_bytes
    assert is_small == (l2_bytes <= 100)
    for call in program.calls:
        place, buffer = call.arguments[-1], call.kernel.arguments[-1]
        assert (buffer.access is Access.STREAM) == (is_small and place.space is Space.ARENA), call.node


def test_an_op_without_a_kernel_is_reported_at_its_line() -> None:
    b = GraphBuilder("net")
    x = b.input("x", f32(3))
    with b.at("layer", Location("net.py", 12)):
        y = b.emit(Constant((1,), (3,), "i32"))
    with pytest.raises(UnsupportedError, match=r"net.py:12: .*constant of i32"):
        compiled(b.build([x, y]))


def test_unpacking_copies_weights_from_their_places() -> None:
    b = GraphBuilder("net")
    x = b.input("x", f32(2, 3, 6, 6))
    v, w = b.param("v", f32(5, 3, 3, 3)), b.param("w", f32(9, 80))
    plan = compiled(b.build([b.emit(Dense(), b.emit(Flatten(), b.emit(Conv2d(), x, v)), w)])).plan
    weights = tuple(plan.graph.params)
    calls = lower_unpacking(plan, weights, AVX2)
    assert all(isinstance(c.node, type(None)) for c in calls)
    arrays = draw(weights, 5)
    outside, offset = {}, 0
    for call, weight in zip(calls, weights, strict=True):
        file_place = next(p for p in call.arguments if p.space is Space.OUTPUT)
        assert (file_place.offset, file_place.nbytes) == (offset, weight.type.nbytes)
        offset += weight.type.nbytes
        source, sink = call.kernel.buffers
        packed = plan.layout(weight).pack(arrays[weight.name])
        outside[weight.name] = np.full(sink.shape, np.nan, np.float32)
        interpret(call.kernel, {source.name: packed.reshape(source.shape), sink.name: outside[weight.name]})
        np.testing.assert_array_equal(outside[weight.name].reshape(-1), arrays[weight.name].reshape(-1))


def test_relayouts_of_a_plan_are_calls() -> None:
    b = GraphBuilder("net")
    image, w = b.input("x", f32(1, 3, 6, 6)), b.param("w", f32(8, 3, 3, 3))
    program = compiled(b.build([b.emit(Conv2d(), image, w)])).program
    copies = [c.node.op for c in program.calls if c.node and isinstance(c.node.op, Relayout)]
    assert copies == [Relayout("acdb", "abcd")]
