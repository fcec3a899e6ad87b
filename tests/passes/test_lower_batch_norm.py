"""Normalization lowered to sums and elementwise nodes computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.evaluate import evaluate
from cnnc.ir.types import TensorType, f32
from cnnc.ir.verify import verify_graph
from cnnc.ops.elementwise import Elementwise
from cnnc.ops.norm import BatchNorm, BatchNormTrain, BatchStatistics
from cnnc.passes.lower_batch_norm import LowerBatchNorm
from cnnc.passes.use_batch_statistics import UseBatchStatistics
from tests.goldens import Goldens, cases
from tests.nets import draw
from tests.passes.test_use_batch_statistics import normalized


@pytest.mark.parametrize("case", cases("lower_batch_norm"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(LowerBatchNorm(), case)


@pytest.mark.parametrize("x", [f32(2, 3, 5, 7), f32(3, 700, 17, 9), f32(9, 17)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_results_stay(x: TensorType, training: bool) -> None:
    graph = normalized(x, layers=2)
    graph = UseBatchStatistics()(graph) if training else graph
    lowered = LowerBatchNorm()(graph)
    verify_graph(lowered)
    inputs, params = draw(graph.inputs, 1, np.float64), draw(graph.params, 2, np.float64)
    params = {name: np.abs(p) + 0.5 for name, p in params.items()}
    expected, found = evaluate(graph, inputs, params), evaluate(lowered, inputs, params)
    for name, array in {**expected.outputs, **expected.params}.items():
        np.testing.assert_allclose({**found.outputs, **found.params}[name], array, rtol=1e-9, atol=1e-9)
    assert not any(isinstance(n.op, BatchNorm | BatchNormTrain | BatchStatistics) for n in lowered.nodes)


def test_inference_is_elementwise_alone() -> None:
    lowered = LowerBatchNorm()(normalized(f32(2, 3, 5, 7)))
    assert all(isinstance(node.op, Elementwise) for node in lowered.nodes)
