"""Normalizations behind max pools: the same results and gradients of fewer elements."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import Array, f32
from cnnc.ir.verify import verify_graph
from cnnc.ops.conv import Conv2d
from cnnc.ops.elementwise import Mul, Relu
from cnnc.ops.norm import BatchNormTrain
from cnnc.ops.pool import MaxPool2d
from cnnc.ops.reduce import Sum
from cnnc.passes.differentiate import Differentiate
from cnnc.passes.normalize_pooled import NormalizePooled
from tests.goldens import Goldens, before, cases
from tests.nets import draw


@pytest.mark.parametrize("case", cases("normalize_pooled"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(NormalizePooled(), case)


def test_results_stay() -> None:
    graph = before("normalize_pooled", "moved")
    inputs, params = draw(graph.inputs, 1, np.float64), draw(graph.params, 2, np.float64)
    moved = NormalizePooled()(graph)
    verify_graph(moved)
    expected, found = evaluate(graph, inputs, params), evaluate(moved, inputs, params)
    for name, array in {**expected.outputs, **expected.params}.items():
        np.testing.assert_allclose({**found.outputs, **found.params}[name], array, rtol=1e-12, atol=1e-12)


def test_what_something_else_reads_or_is_not_monotone_stays() -> None:
    graph = before("normalize_pooled", "kept")
    assert NormalizePooled()(graph) == graph


def _pooled_loss() -> Graph:
    """A weighted sum of what comes out of a convolution, a normalization, an activation and a pool."""
    b = GraphBuilder("net")
    x, k = b.input("x", f32(3, 3, 9, 9)), b.param("k", f32(5, 3, 3, 3))
    weight, bias = b.param("weight", f32(5)), b.param("bias", f32(5))
    share = b.input("share", f32(3, 5, 5, 5))
    h = b.emit(BatchNormTrain(), b.emit(Conv2d(pad=(1, 1, 1, 1)), x, k), weight, bias)
    y = b.emit(MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1)), b.emit(Relu(), h))
    return b.build([b.emit(Sum((0, 1, 2, 3)), b.emit(Mul(), y, share))])


@pytest.mark.parametrize("signs", [(1, 1, 1, 1, 1), (-1, 1, -1, 1, -1), (1, 0, -1, 1, 1)])
def test_gradients_stay(signs: tuple[int, ...]) -> None:
    """With weights of either sign; where one is zero all places of a window are equal, so that of them the
    derivative by the weight may be any: the others must not be moved by it."""
    graph = _pooled_loss()
    inputs, params = draw(graph.inputs, 3, np.float64), draw(graph.params, 4, np.float64)
    params["weight"] = (np.abs(params["weight"]) + 0.1) * np.array(signs)
    differentiate = Differentiate(("x", "k", "weight", "bias"))
    expected, found = (
        _gradients(differentiate(each), inputs, params) for each in (graph, NormalizePooled()(graph))
    )
    defined = np.array(signs) != 0
    for name, old, new in zip(("loss", "x", "k", "weight", "bias"), expected, found, strict=True):
        chosen = defined if name == "weight" else slice(None)
        np.testing.assert_allclose(new[chosen] if new.ndim else new, old[chosen] if old.ndim else old, 1e-9)


def _gradients(graph: Graph, inputs: dict[str, Array], params: dict[str, Array]) -> list[Array]:
    outputs = evaluate(graph, inputs, params).outputs
    return [outputs[value.name] for value in graph.outputs]
