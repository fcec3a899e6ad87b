"""AbsorbFlatten: the same numbers without flattening."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.evaluate import evaluate
from cnnc.passes.absorb_flatten import AbsorbFlatten
from tests.goldens import Goldens, before, cases
from tests.strategies import feeds


@pytest.mark.parametrize("case", cases("absorb_flatten"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(AbsorbFlatten(), case)


@pytest.mark.parametrize("case", cases("absorb_flatten"))
def test_outputs_and_updates_are_the_same(case: str) -> None:
    graph = before("absorb_flatten", case)
    absorbed = AbsorbFlatten()(graph)
    given = feeds(graph, seed=2)
    inputs = {v.name: given[v.name] for v in graph.inputs}
    expected = evaluate(graph, inputs, {p.name: given[p.name] for p in graph.params})
    reshaped = {p.name: given[p.name].reshape(p.type.shape) for p in absorbed.params}
    found = evaluate(absorbed, inputs, reshaped)
    for name, array in expected.outputs.items():
        np.testing.assert_allclose(found.outputs[name], array, rtol=1e-5, atol=1e-5)
    for name, array in expected.params.items():
        np.testing.assert_array_equal(found.params[name].ravel(), array.ravel())


def test_running_it_again_changes_nothing() -> None:
    once = AbsorbFlatten()(before("absorb_flatten", "shared_weights"))
    assert AbsorbFlatten()(once) == once
