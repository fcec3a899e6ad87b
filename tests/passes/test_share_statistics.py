"""Normalizations of joined values: the same results and gradients by the statistics of the parts."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import f32
from cnnc.ir.verify import verify_graph
from cnnc.ops.concat import Concat
from cnnc.ops.elementwise import Mul
from cnnc.ops.norm import BatchNormTrain, BatchStatistics
from cnnc.ops.reduce import Sum
from cnnc.passes.differentiate import Differentiate
from cnnc.passes.share_statistics import ShareStatistics
from tests.goldens import Goldens, before, cases
from tests.nets import draw
from tests.passes.test_use_batch_statistics import normalized


@pytest.mark.parametrize("case", cases("share_statistics"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(ShareStatistics(), case)


def _check_same(graph: Graph, other: Graph) -> None:
    verify_graph(other)
    inputs, params = draw(graph.inputs, 1, np.float64), draw(graph.params, 2, np.float64)
    expected, found = evaluate(graph, inputs, params).outputs, evaluate(other, inputs, params).outputs
    for old, new in zip(graph.outputs, other.outputs, strict=True):
        np.testing.assert_allclose(found[new.name], expected[old.name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", cases("share_statistics"))
def test_results_stay(case: str) -> None:
    graph = before("share_statistics", case)
    _check_same(graph, ShareStatistics()(graph))


def _dense_block() -> Graph:
    """A weighted sum of two normalizations, of which the second reads what the first does and more."""
    b = GraphBuilder("net")
    x, y, z = (b.input(name, f32(2, maps, 3, 5)) for name, maps in (("x", 4), ("y", 3), ("z", 2)))
    first = b.emit(Concat(1), x, y)
    second = b.emit(Concat(1), first, z)
    terms = []
    for number, value in enumerate((first, second)):
        maps = value.type.shape[1]
        weight, bias = b.param(f"w{number}", f32(maps)), b.param(f"b{number}", f32(maps))
        share = b.input(f"share{number}", value.type)
        normed = b.emit(BatchNormTrain(), value, weight, bias)
        terms.append(b.emit(Sum((0, 1, 2, 3)), b.emit(Mul(), normed, share)))
    return b.build([b.emit(Mul(), *terms)])


def test_gradients_stay() -> None:
    graph, differentiate = _dense_block(), Differentiate(("x", "y", "z", "w0", "w1", "b0", "b1"))
    _check_same(differentiate(graph), differentiate(ShareStatistics()(graph)))


def test_each_part_has_its_statistics_once() -> None:
    shared = ShareStatistics()(_dense_block())
    parts = [n.operands[0].name for n in shared.nodes if isinstance(n.op, BatchStatistics)]
    assert sorted(parts) == ["x", "y", "z"]


def test_other_normalizations_stay() -> None:
    graph = normalized(f32(2, 3, 5, 7), layers=2)
    assert ShareStatistics()(graph) == graph
