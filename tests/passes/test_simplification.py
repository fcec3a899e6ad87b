"""Constant folding, common subexpressions and dead code: less to run, the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.verify import verify_graph
from cnnc.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from cnnc.passes.eliminate_dead_code import EliminateDeadCode
from cnnc.passes.fold_constants import FoldConstants
from cnnc.passes.runner import Pass
from tests.goldens import Goldens, before, cases
from tests.strategies import feeds, graphs

PASSES: tuple[Pass, ...] = (FoldConstants(), EliminateCommonSubexpressions(), EliminateDeadCode())
CASES = [(each, case) for each in PASSES for case in cases(each.name)]


@pytest.mark.parametrize(("each", "case"), CASES, ids=lambda x: x if isinstance(x, str) else x.name)
def test_golden(each: Pass, case: str, goldens: Goldens) -> None:
    goldens.check_pass(each, case)


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
@given(graph=graphs())
@settings(max_examples=25, deadline=None)
def test_the_results_keep_their_bits(each: Pass, graph: Graph) -> None:
    simpler = each(graph)
    verify_graph(simpler)
    assert (simpler.inputs, simpler.params, simpler.outputs) == (graph.inputs, graph.params, graph.outputs)
    given = feeds(graph, seed=3)
    inputs = {v.name: given[v.name] for v in graph.inputs}
    params = {v.name: given[v.name] for v in graph.params}
    expected, found = evaluate(graph, inputs, params), evaluate(simpler, inputs, params)
    for name, array in {**expected.outputs, **expected.params}.items():
        np.testing.assert_array_equal({**found.outputs, **found.params}[name], array)


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
@given(graph=graphs())
@settings(max_examples=10, deadline=None)
def test_a_second_run_changes_nothing(each: Pass, graph: Graph) -> None:
    once = each(graph)
    assert each(once) == once


def test_the_limit_of_folding_is_an_option() -> None:
    graph = before("fold_constants", "chain")
    folded = FoldConstants(limit=128)(graph)
    assert folded.nodes[-1].operands == ()
    assert FoldConstants(limit=0)(graph) == graph


def test_every_live_node_is_kept_however_deep() -> None:
    graph = before("eliminate_dead_code", "chain")
    live = EliminateDeadCode()(graph)
    assert [n.result.name for n in live.nodes] == ["3", "4"]
