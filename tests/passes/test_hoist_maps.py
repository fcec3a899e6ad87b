"""One elementwise node in place of one for every slice."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.evaluate import evaluate
from cnnc.ir.verify import verify_graph
from cnnc.ops.elementwise import Map
from cnnc.passes.hoist_maps import HoistMaps
from tests.goldens import Goldens, before, cases
from tests.nets import draw


@pytest.mark.parametrize("case", cases("hoist_maps"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(HoistMaps(), case)


def test_results_stay() -> None:
    graph = before("hoist_maps", "hoisted")
    hoisted = HoistMaps()(graph)
    verify_graph(hoisted)
    inputs = draw(graph.inputs, 1)
    expected, found = evaluate(graph, inputs, {}).outputs, evaluate(hoisted, inputs, {}).outputs
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert sum(isinstance(node.op, Map) for node in hoisted.nodes) == 1


@pytest.mark.parametrize("case", ["kept", "twice"])
def test_what_differs_or_is_incomplete_stays(case: str) -> None:
    graph = before("hoist_maps", case)
    assert HoistMaps()(graph) == graph
