"""Reverse mode on whole networks, against central differences in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cnnc.errors import CnncError, ShapeError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate_values
from cnnc.ir.graph import Graph
from cnnc.ir.types import f32
from cnnc.ir.verify import verify_graph
from cnnc.ops.elementwise import Mul, Relu
from cnnc.ops.reduce import Sum
from cnnc.passes.differentiate import Differentiate, gradient_graph
from tests.goldens import Goldens, cases
from tests.nets import draw, residual, tiny_lenet

STEP = 1e-5


@pytest.mark.parametrize("case", cases("differentiate"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(Differentiate(), case)


@pytest.mark.parametrize("make", [tiny_lenet, residual])
def test_gradients_agree_with_central_differences(make: Callable[[], Graph]) -> None:
    loss_graph = make()
    names = ["image", *(p.name for p in loss_graph.params)]
    graph = gradient_graph(loss_graph, names)
    verify_graph(graph)
    feeds = draw((*graph.inputs, *graph.params), 1, np.float64)
    values = evaluate_values(graph, feeds)
    rng = np.random.default_rng(2)
    for name, gradient in zip(names, graph.outputs[len(loss_graph.outputs) :], strict=True):
        direction = rng.standard_normal(feeds[name].shape)
        slope = float(np.sum(values[gradient.name] * direction))
        ahead, behind = (
            evaluate_values(loss_graph, {**feeds, name: feeds[name] + sign * STEP * direction})
            for sign in (1, -1)
        )
        loss = loss_graph.outputs[0].name
        difference = float(ahead[loss] - behind[loss]) / (2 * STEP)
        assert slope == pytest.approx(difference, rel=1e-6, abs=1e-9), name


def test_a_value_read_twice_gets_the_sum() -> None:
    b = GraphBuilder("square")
    x = b.input("x", f32(3))
    graph = Differentiate(("x",))(b.build([b.emit(Sum((0,)), b.emit(Mul(), x, x))]))
    found = evaluate_values(graph, {"x": np.array([1.0, -2.0, 3.0])})
    np.testing.assert_array_equal(found[graph.outputs[1].name], [2.0, -4.0, 6.0])


def test_an_intermediate_value_can_be_differentiated_by() -> None:
    b = GraphBuilder("net")
    x = b.input("x", f32(3))
    y = b.emit(Relu(), x, name="y")
    graph = gradient_graph(b.build([b.emit(Sum((0,)), b.emit(Mul(), y, y))]), ["y"])
    found = evaluate_values(graph, {"x": np.array([1.0, -2.0, 3.0])})
    np.testing.assert_array_equal(found[graph.outputs[1].name], [2.0, 0.0, 6.0])


def test_a_param_that_the_loss_does_not_need_gets_zeros() -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(3)), b.param("w", f32(2, 2))
    graph = Differentiate()(b.build([b.emit(Sum((0,)), x)]))
    found = evaluate_values(graph, {"x": np.ones(3), w.name: np.ones((2, 2))})
    np.testing.assert_array_equal(found[graph.outputs[1].name], np.zeros((2, 2)))


def test_equal_gradients_are_distinct_outputs() -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(3)), b.param("w", f32(3))
    graph = gradient_graph(b.build([b.emit(Sum((0,)), b.emit(Mul(), x, w))]), ["w", "w"])
    verify_graph(graph)
    found = evaluate_values(graph, {"x": np.arange(3.0), "w": np.ones(3)})
    for output in graph.outputs[1:]:
        np.testing.assert_array_equal(found[output.name], np.arange(3.0))


def test_backward_nodes_keep_layer_and_location() -> None:
    loss_graph = tiny_lenet()
    graph = Differentiate()(loss_graph)
    backward = graph.nodes[len(loss_graph.nodes) :]
    assert {n.layer for n in backward} == {n.layer for n in loss_graph.nodes}
    lines = {(n.layer, n.loc) for n in loss_graph.nodes}
    assert all((n.layer, n.loc) in lines for n in backward)


def test_mistakes_are_named() -> None:
    b = GraphBuilder("net")
    x = b.input("x", f32(3))
    with pytest.raises(ShapeError, match=r"a loss is a float scalar; 'y' is f32\[3\]"):
        Differentiate(("x",))(b.build([b.emit(Relu(), x, name="y")]))
    with pytest.raises(CnncError, match="net has no value 'w'"):
        Differentiate(("w",))(b.build([b.emit(Sum((0,)), x)]))
    with pytest.raises(CnncError, match="net has no output"):
        Differentiate()(b.build([]))
