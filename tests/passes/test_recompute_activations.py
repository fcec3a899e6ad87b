"""RecomputeActivations: the same bits from values that are not kept, computed when a gradient is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cnnc.backend.target import TARGETS
from cnnc.errors import CnncError
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.passes.recompute_activations import AGAIN, RecomputeActivations, forward_nodes, recomputable
from cnnc.passes.runner import run_passes
from cnnc.peak import Profile
from cnnc.pipeline import plan_graph, training_passes
from tests.goldens import Goldens, before
from tests.small_networks import classifier, normalizing, regression


@pytest.mark.parametrize(
    ("case", "values"), [("chain", ("1", "2")), ("chain_kept", ("2",)), ("epilogue", ("2",))]
)
def test_golden(case: str, values: tuple[str, ...], goldens: Goldens) -> None:
    goldens.check_pass(RecomputeActivations(values), case)


def steps() -> Iterator[Graph]:
    """Training steps as fusion finds them."""
    for network in (classifier(), regression(), normalizing()):
        passes = training_passes(3, network.optimizer)[:-1]
        yield run_passes(network.loss_graph(), passes)[-1].graph


@pytest.mark.parametrize("graph", list(steps()), ids=lambda graph: graph.name)
@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_results_are_the_same_bits(graph: Graph, every: int) -> None:
    names = tuple(v.name for v in recomputable(graph) if v not in graph.results)[::every]
    (_, changed, fused) = run_passes(graph, (RecomputeActivations(names), FuseEpilogues()))
    assert len(changed.graph.nodes) > len(graph.nodes)
    rng = np.random.default_rng(0)
    inputs = {v.name: rng.random(v.type.shape).astype(v.type.numpy) for v in graph.inputs}
    params = {v.name: rng.random(v.type.shape).astype(np.float32) for v in graph.params}
    for plain, again in ((graph, changed.graph), (FuseEpilogues()(graph), fused.graph)):
        expected, found = (evaluate(each, inputs, params) for each in (plain, again))
        for name, array in expected.outputs.items():
            np.testing.assert_array_equal(found.outputs[name], array)
        for name, array in expected.params.items():
            np.testing.assert_array_equal(found.params[name], array)


def test_no_later_pass_brings_the_two_together() -> None:
    graph = before("recompute_activations", "chain")
    changed = RecomputeActivations(("1", "2"))(graph)
    assert EliminateCommonSubexpressions()(changed) == changed
    fused = FuseEpilogues()(changed)
    again = next(n for n in fused.nodes if f"2{AGAIN}" in (v.name for v in n.results))
    assert {v.name for v in again.after} == {"4"}
    plan = plan_graph(fused, TARGETS["avx2"])
    position = {v.name: i for v, i in plan.graph.position.items()}
    assert position[f"2{AGAIN}"] > position["4"]


def test_what_is_dropped_is_not_alive_between_the_parts() -> None:
    graph = before("recompute_activations", "chain")
    chosen: tuple[tuple[str, ...], ...] = ((), ("2",))
    plans = [plan_graph(FuseEpilogues()(RecomputeActivations(v)(graph)), TARGETS["avx2"]) for v in chosen]
    for plan, expected in zip(plans, (True, False), strict=True):
        turn = plan.graph.position[plan.graph.outputs[0]]
        alive = {v.name for held in Profile(plan).held(turn) for v in held.values}
        assert ("2" in alive) == expected


def test_only_values_of_the_forward_part() -> None:
    graph = before("recompute_activations", "chain")
    assert [v.name for v in recomputable(graph)] == ["1", "2", "3", "loss"]
    assert forward_nodes(graph) == {0, 1, 2, 3}
    for name in ("5", "x", "w", "nothing"):
        with pytest.raises(CnncError, match=f"net has no value '{name}' that could be computed again"):
            RecomputeActivations((name,))(graph)
