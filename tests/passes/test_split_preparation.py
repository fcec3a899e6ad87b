"""What depends on params alone leaves the graph, and the preparation computes it."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.evaluate import evaluate
from cnnc.ir.verify import verify_graph
from cnnc.passes.split_preparation import SplitPreparation, preparation_graph, split_preparation
from tests.goldens import Goldens, before, cases
from tests.strategies import feeds


@pytest.mark.parametrize("case", cases("split_preparation"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(SplitPreparation(), case)


def test_preparation_and_main_together_give_what_the_graph_gave() -> None:
    graph = before("split_preparation", "scaled")
    given = feeds(graph, seed=1)
    weights = {p.name: given[p.name] for p in graph.params}
    expected = evaluate(graph, {"x": given["x"]}, weights).outputs["4"]
    split = split_preparation(graph)
    prepare = preparation_graph(split.main, graph.params, split.nodes, {})
    verify_graph(prepare)
    empty = {p.name: np.zeros(p.type.shape, np.float32) for p in prepare.params}
    prepared = evaluate(prepare, {f"{n}.given": a for n, a in weights.items()}, empty).params
    found = evaluate(split.main, {"x": given["x"]}, prepared).outputs["4"]
    np.testing.assert_array_equal(found, expected)


def test_params_nobody_needs_go() -> None:
    assert [p.name for p in split_preparation(before("split_preparation", "scaled")).main.params] == [
        "w",
        "conv.mul",
    ]


def test_states_begin_with_their_number() -> None:
    main = split_preparation(before("split_preparation", "scaled")).main
    prepare = preparation_graph(main, (), (), {"w": 0.5})
    empty = {p.name: np.zeros(p.type.shape, np.float32) for p in prepare.params}
    assert (evaluate(prepare, {}, empty).params["w"] == 0.5).all()
