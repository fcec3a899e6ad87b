"""Normalization folded into weights computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.evaluate import evaluate
from cnnc.ir.verify import verify_graph
from cnnc.ops.norm import BatchNorm
from cnnc.passes.eliminate_dead_code import EliminateDeadCode
from cnnc.passes.fold_batch_norm import FoldBatchNorm
from cnnc.passes.split_preparation import split_preparation
from tests.goldens import Goldens, before, cases
from tests.nets import draw


@pytest.mark.parametrize("case", cases("fold_batch_norm"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(FoldBatchNorm(), case)


@pytest.mark.parametrize("case", cases("fold_batch_norm"))
def test_results_stay(case: str) -> None:
    graph = before("fold_batch_norm", case)
    folded = FoldBatchNorm()(graph)
    verify_graph(folded)
    inputs = draw(graph.inputs, 1, np.float64)
    params = {name: np.abs(p) + 0.5 for name, p in draw(graph.params, 2, np.float64).items()}
    expected, found = evaluate(graph, inputs, params).outputs, evaluate(folded, inputs, params).outputs
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-12)


def test_everything_but_the_contraction_is_prepared() -> None:
    graph = EliminateDeadCode()(FoldBatchNorm()(before("fold_batch_norm", "convolution")))
    assert [node.op.name for node in split_preparation(graph).main.nodes] == ["conv2d", "bias", "relu"]


def test_what_others_read_or_has_groups_stays() -> None:
    folded = FoldBatchNorm()(before("fold_batch_norm", "contractions"))
    kept = [node.layer for node in folded.nodes if isinstance(node.op, BatchNorm)]
    assert kept == ["kept", "last"]
