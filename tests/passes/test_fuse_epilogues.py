"""Fusion: the same bits from fewer nodes, and a reason for what stays apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.op import Trait
from cnnc.ir.types import f32
from cnnc.ir.verify import verify_graph
from cnnc.ops.conv import Conv2d
from cnnc.ops.dense import DenseInputGrad
from cnnc.ops.elementwise import Map, Relu
from cnnc.ops.fused import Fused
from cnnc.ops.optimizer import Adam
from cnnc.ops.pool import MeanPool2d
from cnnc.passes.append_updates import training_graph
from cnnc.passes.eliminate_dead_code import EliminateDeadCode
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.passes.regions import find_regions
from tests.goldens import Goldens, before, cases
from tests.nets import draw, layer, lenet5, residual, tiny_lenet
from tests.strategies import graphs


@pytest.mark.parametrize("case", cases("fuse_epilogues"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(FuseEpilogues(), case)


@pytest.mark.parametrize("case", cases("fuse_epilogues"))
def test_refusals_golden(case: str, goldens: Goldens) -> None:
    report = find_regions(before("fuse_epilogues", case))
    text = "".join(f"{refusal}\n" for refusal in report.refusals)
    goldens.check_text(f"fuse_epilogues/{case}.refusals.txt", text)


def test_gradients_of_dense_layers_take_no_channel_operands() -> None:
    b = GraphBuilder("net")
    dy, w, scale = b.input("dy", f32(2, 3)), b.param("w", f32(3, 16, 2, 2)), b.param("scale", f32(16))
    dx = b.emit(Relu(), b.emit(DenseInputGrad(), dy, w))
    graph = b.build([b.emit(Map("a * b"), dx, scale)])
    assert [len(region) for region in find_regions(graph).regions] == [2]
    assert any("sees an image as one row" in str(refusal) for refusal in find_regions(graph).refusals)


def check_same_bits(graph: Graph) -> None:
    fused = FuseEpilogues()(graph)
    verify_graph(fused)
    assert (fused.inputs, fused.params, fused.outputs) == (graph.inputs, graph.params, graph.outputs)
    inputs, params = draw(graph.inputs, 1), draw(graph.params, 2)
    with np.errstate(all="ignore"):
        expected, found = evaluate(graph, inputs, params), evaluate(fused, inputs, params)
    for name, array in {**expected.outputs, **expected.params}.items():
        np.testing.assert_array_equal({**found.outputs, **found.params}[name], array)


@given(graph=graphs(max_steps=12))
@settings(max_examples=60, deadline=None)
def test_the_results_keep_their_bits(graph: Graph) -> None:
    check_same_bits(graph)


@pytest.mark.parametrize("make", [tiny_lenet, residual])
def test_training_keeps_its_bits(make: Callable[[], Graph]) -> None:
    check_same_bits(training_graph(make(), Adam()))


@given(graph=graphs(max_steps=12))
@settings(max_examples=20, deadline=None)
def test_a_second_run_changes_nothing(graph: Graph) -> None:
    once = FuseEpilogues()(graph)
    assert FuseEpilogues()(once) == once


def test_lenet5_runs_as_seven_kernels() -> None:
    fused = FuseEpilogues()(lenet5())
    assert [n.op.name for n in fused.nodes] == [
        *("fused", "fused", "flatten", "fused", "fused", "fused"),
        *("softmax_cross_entropy", "correct_count"),
    ]
    first = fused.nodes[0].op
    assert isinstance(first, Fused)
    assert [n.op.name for n in first.body.nodes] == ["conv2d", "bias", "tanh", "mean_pool2d"]
    assert (fused.nodes[0].layer, str(fused.nodes[0].loc)) == ("c1", "lenet5.py:2")


def test_no_elementwise_node_of_an_update_stays_alone() -> None:
    graph = training_graph(lenet5(), Adam())
    fused = FuseEpilogues()(EliminateDeadCode()(graph))
    writers = {fused.position[new] for param, new in fused.updates if param.type.rank}
    assert len(writers) == len(lenet5().params)


def test_equal_regions_are_equal_ops() -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(1, 3, 4, 4)), b.param("w", f32(3, 3, 1, 1))
    for name in ("first", "second"):
        x = layer(b, name, Conv2d(), x, w.type, Relu())
    one, other = FuseEpilogues()(b.build([x])).nodes
    assert one.op == other.op and one.layer != other.layer


def test_the_anchor_comes_first() -> None:
    fused = FuseEpilogues()(EliminateDeadCode()(training_graph(lenet5(), Adam())))
    bodies = [n.op for n in fused.nodes if isinstance(n.op, Fused)]
    for op in bodies:
        assert op.anchor.op.has(Trait.EPILOGUE) or op.anchor.op.has(Trait.UPDATE)
        assert not any(n.op.has(Trait.CONTRACTION) for n in op.epilogue)


def test_what_needs_the_unpooled_result_stands_before_the_pool() -> None:
    fused = FuseEpilogues()(before("fuse_epilogues", "training"))
    op = next(n.op for n in fused.nodes if isinstance(n.op, Fused))
    assert [n.op.name for n in op.body.nodes] == ["conv2d", "bias", "tanh", "map", "max_pool2d", "relu"]


def test_who_waits_for_a_region_is_not_taken_into_it_and_keeps_waiting() -> None:
    """`again` waits for a value inside the region of the convolution, and reads nothing of it."""
    b = GraphBuilder("net")
    x, w = b.input("x", f32(1, 3, 4, 4)), b.param("w", f32(3, 3, 1, 1))
    inner = b.emit(Conv2d(), x, w, name="inner")
    outer = b.emit(Relu(), inner, name="outer")
    (again,) = b.emit_all(Relu(), x, names=["again"], after=(inner,))
    (late,) = b.emit_all(Relu(), again, names=["late"], after=(again,))
    fused, waiting = FuseEpilogues()(b.build([outer, late])).nodes
    assert fused.results == (outer,) and waiting.results == (late,)
    assert waiting.after == (outer,)


@pytest.mark.parametrize(("size", "is_fused"), [(2, True), (3, True), (4, False), (7, False)])
def test_a_pool_joins_a_contraction_if_its_window_fits_the_registers(size: int, is_fused: bool) -> None:
    b = GraphBuilder("means")
    x, w = b.input("x", f32(1, 2, size, size)), b.param("w", f32(3, 2, 1, 1))
    mean = b.emit(MeanPool2d((size, size), (size, size)), b.emit(Conv2d(), x, w))
    graph = b.build([mean])
    assert (len(FuseEpilogues()(graph).nodes) == 1) is is_fused
    reasons = [refusal.reason for refusal in find_regions(graph).refusals]
    assert reasons == (
        [] if is_fused else [f"its windows have {size**2} elements, more than registers hold beside the rest"]
    )
