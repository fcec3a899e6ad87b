"""Training normalizes by the batch, and the running statistics follow."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import TensorType, f32
from cnnc.ops.norm import BatchNorm
from cnnc.passes.use_batch_statistics import UseBatchStatistics, running_statistics
from tests.goldens import Goldens, cases
from tests.nets import draw


@pytest.mark.parametrize("case", cases("use_batch_statistics"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(UseBatchStatistics(), case)


def normalized(x: TensorType, layers: int = 1, momentum: float = 0.1) -> Graph:
    """Normalizations of an input one behind the other."""
    b = GraphBuilder("net")
    h = b.input("x", x)
    for number in range(layers):
        parts = ("weight", "bias", "running_mean", "running_var")
        params = [b.param(f"n{number}.{part}", f32(x.shape[1])) for part in parts]
        h = b.emit(BatchNorm(momentum=momentum), h, *params)
    return b.build([h])


def test_running_statistics_are_pytorchs() -> None:
    """After some steps of random batches; by torch.nn.BatchNorm2d's documented rule."""
    graph = UseBatchStatistics()(normalized(f32(3, 5, 2, 7), momentum=0.3))
    params = {**draw(graph.params, 0, np.float64), "n0.running_var": np.ones(5)}
    mean, variance = params["n0.running_mean"], params["n0.running_var"]
    for step in range(4):
        inputs = draw(graph.inputs, step, np.float64)
        x = inputs["x"].transpose(1, 0, 2, 3).reshape(5, -1)
        mean, variance = 0.7 * mean + 0.3 * x.mean(1), 0.7 * variance + 0.3 * x.var(1, ddof=1)
        found = evaluate(graph, inputs, params)
        params = dict(found.params)
        y = found.outputs[graph.outputs[0].name].transpose(1, 0, 2, 3).reshape(5, -1)
        bias, weight = params["n0.bias"], np.abs(params["n0.weight"])
        np.testing.assert_allclose(y.mean(1), bias, rtol=1e-9)
        np.testing.assert_allclose(y.std(1), weight * np.sqrt(x.var(1) / (x.var(1) + 1e-5)), rtol=1e-9)
    np.testing.assert_allclose(params["n0.running_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(params["n0.running_var"], variance, rtol=1e-12)


def test_running_statistics_are_known_before_and_not_trained_behind() -> None:
    graph = normalized(f32(2, 3), layers=2)
    names = {f"n{i}.{part}" for i in (0, 1) for part in ("running_mean", "running_var")}
    assert {v.name for v in running_statistics(graph)} == names
    trained = {v.name for v in UseBatchStatistics()(graph).trained}
    assert trained == {p.name for p in graph.params} - names


def test_one_value_per_channel_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"f32\[1,3\] as the input: statistics of a batch need several"):
        UseBatchStatistics()(normalized(f32(1, 3)))


def test_running_statistics_that_cannot_follow_are_refused() -> None:
    b = GraphBuilder("net")
    x = b.input("x", f32(2, 3))
    weight, bias, mean, variance = (b.param(name, f32(3)) for name in ("w", "b", "m", "v"))
    first = b.emit(BatchNorm(), x, weight, bias, mean, variance)
    second = b.emit(BatchNorm(), first, weight, bias, mean, variance)
    with pytest.raises(UnsupportedError, match="'m' must be a param of one normalization alone"):
        UseBatchStatistics()(b.build([second]))
