"""DropDropout: the same numbers without dropout."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.evaluate import evaluate_values
from cnnc.passes.drop_dropout import DropDropout
from tests.goldens import Goldens, before, cases
from tests.strategies import feeds


@pytest.mark.parametrize("case", cases("drop_dropout"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(DropDropout(), case)


def test_outputs_are_the_same() -> None:
    graph = before("drop_dropout", "chain")
    given = feeds(graph, seed=2)
    expected, found = (evaluate_values(g, given) for g in (graph, DropDropout()(graph)))
    for output in graph.outputs:
        np.testing.assert_array_equal(found[output.name], expected[output.name])
