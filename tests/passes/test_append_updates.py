"""Training graphs: three steps of evaluation against the optimizer's rule written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import CnncError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import Array, f32
from cnnc.ir.verify import verify_graph
from cnnc.ops.optimizer import SGD, Adam, Optimizer
from cnnc.ops.reduce import Sum
from cnnc.passes.append_updates import AppendUpdates, initial_states, training_graph
from cnnc.passes.differentiate import Differentiate
from tests.goldens import Goldens, cases
from tests.nets import draw, tiny_lenet

RATE = 0.05


@pytest.mark.parametrize("case", cases("append_updates"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(AppendUpdates(SGD(momentum=0.9)), case)


def test_states_of_the_network_come_last() -> None:
    b = GraphBuilder("net")
    loss_graph = b.build([b.emit(Sum((0,)), b.param("w", f32(3)))])
    (loss,) = loss_graph.outputs
    graph = AppendUpdates(Adam())(Differentiate()(loss_graph))
    assert graph.outputs == (loss,)
    assert [p.name for p in graph.params] == [
        "w",
        "w.m",
        "w.v",
        "optimizer.beta1_power",
        "optimizer.beta2_power",
    ]


def trained(loss_graph: Graph, optimizer: Optimizer, steps: int) -> dict[str, Array]:
    """The params after so many steps of the training graph."""
    graph = training_graph(loss_graph, optimizer)
    verify_graph(graph)
    params = {
        **draw(loss_graph.params, 1, np.float64),
        **{n: a.astype(np.float64) for n, a in initial_states(loss_graph.params, optimizer).items()},
    }
    for step in range(steps):
        inputs = {**draw(loss_graph.inputs, step, np.float64), "lr": np.asarray(RATE)}
        params = dict(evaluate(graph, inputs, params).params)
    return params


def gradients(loss_graph: Graph, params: dict[str, Array], step: int) -> dict[str, Array]:
    """The gradients by every param at the inputs of that step."""
    graph = Differentiate()(loss_graph)
    outputs = evaluate(graph, draw(loss_graph.inputs, step, np.float64), params).outputs
    return {p.name: outputs[v.name] for p, v in zip(graph.params, graph.outputs[2:], strict=True)}


def test_momentum_and_decay() -> None:
    net = tiny_lenet()
    params = dict(draw(net.params, 1, np.float64))
    velocity = {name: np.zeros_like(p) for name, p in params.items()}
    for step in range(3):
        for name, g in gradients(net, params, step).items():
            velocity[name] = 0.9 * velocity[name] + (g + 0.01 * params[name])
            params[name] = params[name] - RATE * velocity[name]
    found = trained(net, SGD(momentum=0.9, weight_decay=0.01), 3)
    for name, p in params.items():
        np.testing.assert_allclose(found[name], p, rtol=1e-9)
        np.testing.assert_allclose(found[f"{name}.m"], velocity[name], rtol=1e-9)


def test_adam() -> None:
    net = tiny_lenet()
    params = dict(draw(net.params, 1, np.float64))
    m = {name: np.zeros_like(p) for name, p in params.items()}
    v = {name: np.zeros_like(p) for name, p in params.items()}
    for step in range(3):
        for name, g in gradients(net, params, step).items():
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            bias_m, bias_v = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
            params[name] = params[name] - RATE * (m[name] / bias_m) / (np.sqrt(v[name] / bias_v) + 1e-8)
    found = trained(net, Adam(), 3)
    for name, p in params.items():
        np.testing.assert_allclose(found[name], p, rtol=1e-6)
    assert found["optimizer.beta1_power"] == pytest.approx(0.9**3)


def test_updates_stand_in_the_layer_of_their_param() -> None:
    graph = training_graph(tiny_lenet(), SGD())
    new = dict(graph.updates)
    layers = {p.name: graph.producer[new[p]].layer for p in graph.params}
    assert layers["c1.weight"] == "c1" and layers["f2.bias"] == "f2"


def test_mistakes_are_named() -> None:
    b = GraphBuilder("net")
    x = b.input("x", f32(3))
    with pytest.raises(CnncError, match="net has no params, so there is nothing to train"):
        AppendUpdates(SGD())(b.build([b.emit(Sum((0,)), x)]))
    with pytest.raises(CnncError, match="outputs of tiny_lenet are not a loss and the gradients"):
        AppendUpdates(SGD())(tiny_lenet())
