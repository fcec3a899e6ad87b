"""Masks computed from what a batch norm was of: the same bits, fewer maps read."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.evaluate import evaluate
from cnnc.ir.verify import verify_graph
from cnnc.passes.derive_masks import DeriveMasks
from tests.goldens import Goldens, before, cases
from tests.nets import draw


@pytest.mark.parametrize("case", cases("derive_masks"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(DeriveMasks(), case)


def test_results_keep_their_bits() -> None:
    graph = before("derive_masks", "masks")
    derived = DeriveMasks()(graph)
    verify_graph(derived)
    inputs, params = draw(graph.inputs, 1), draw(graph.params, 2)
    expected, found = evaluate(graph, inputs, params).outputs, evaluate(derived, inputs, params).outputs
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_cheap_activations_behind_the_norm_alone_are_computed_again() -> None:
    """Not what takes longer than reading it, nor what was made of other maps as well."""
    nodes = {n.results[0].name: n for n in DeriveMasks()(before("derive_masks", "masks")).nodes}
    read = {name: [o.name for o in nodes[name].operands] for name in ("3", "6", "9", "12")}
    assert read == {
        "3": ["dy", "x", "s", "t"],
        "6": ["dy", "x", "s", "t"],
        "9": ["dy", "tanh"],
        "12": ["dy", "sum"],
    }
