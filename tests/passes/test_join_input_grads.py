"""Input gradients of several convolutions of one value, computed as one."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.evaluate import evaluate
from cnnc.ir.verify import verify_graph
from cnnc.ops.conv import Conv2dInputGrad
from cnnc.passes.join_input_grads import JoinInputGrads
from tests.goldens import Goldens, before, cases
from tests.nets import draw


@pytest.mark.parametrize("case", cases("join_input_grads"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(JoinInputGrads(), case)


def test_results_stay() -> None:
    graph = before("join_input_grads", "joined")
    joined = JoinInputGrads()(graph)
    verify_graph(joined)
    inputs, params = draw(graph.inputs, 1, np.float64), draw(graph.params, 2, np.float64)
    expected, found = evaluate(graph, inputs, params).outputs, evaluate(joined, inputs, params).outputs
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-12)
    assert sum(isinstance(node.op, Conv2dInputGrad) for node in joined.nodes) == 2


def test_what_is_read_elsewhere_or_differs_stays() -> None:
    graph = before("join_input_grads", "kept")
    assert JoinInputGrads()(graph) == graph
