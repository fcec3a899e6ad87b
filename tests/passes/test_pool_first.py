"""Pools in front of pointwise convolutions: the same results of fewer products."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.evaluate import evaluate
from cnnc.ir.verify import verify_graph
from cnnc.passes.pool_first import PoolFirst
from cnnc.summary import graph_macs
from tests.goldens import Goldens, before, cases
from tests.nets import draw


@pytest.mark.parametrize("case", cases("pool_first"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(PoolFirst(), case)


@pytest.mark.parametrize("case", cases("pool_first"))
def test_results_stay(case: str) -> None:
    graph = before("pool_first", case)
    moved = PoolFirst()(graph)
    verify_graph(moved)
    inputs, params = draw(graph.inputs, 1, np.float64), draw(graph.params, 2, np.float64)
    expected, found = evaluate(graph, inputs, params).outputs, evaluate(moved, inputs, params).outputs
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-12)


def test_products_are_saved() -> None:
    graph = before("pool_first", "moved")
    assert graph_macs(graph) == 2 * (48 * 6 * 4 + 12 * 8 * 3 + 2 * 3 * 8)
    assert graph_macs(PoolFirst()(graph)) == 2 * (12 * 6 * 4 + 2 * 8 * 3 + 1 * 3 * 8)


def test_what_cannot_change_places_stays() -> None:
    graph = before("pool_first", "kept")
    assert PoolFirst()(graph) == graph
