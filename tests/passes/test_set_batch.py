"""SetBatch: the same network for several images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from cnnc.errors import CnncError, ShapeError
from cnnc.ir.evaluate import evaluate_values
from cnnc.ir.graph import Graph
from cnnc.ir.parser import parse_graph
from cnnc.ir.verify import verify_graph
from cnnc.ops import OPS
from cnnc.passes.set_batch import SetBatch
from tests.goldens import Goldens, cases
from tests.strategies import feeds, graphs


@pytest.mark.parametrize("case", cases("set_batch"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(SetBatch(8), case)


@given(graphs(regions=False))
@settings(max_examples=25, deadline=None)
def test_every_image_is_computed_as_if_alone(graph: Graph) -> None:
    alone, both = SetBatch(1)(graph), SetBatch(2)(graph)
    verify_graph(both)
    given = feeds(both, seed=1)
    whole = evaluate_values(both, given)
    (image,) = graph.inputs
    for index in range(2):
        single = evaluate_values(alone, {**given, image.name: given[image.name][index : index + 1]})
        for output in (v for v in alone.outputs if v.type.rank > 1):
            expected = single[output.name][0]
            np.testing.assert_allclose(whole[output.name][index], expected, rtol=1e-4, atol=1e-5)


def test_a_batch_must_be_positive() -> None:
    with pytest.raises(CnncError, match="the batch must be positive, not 0"):
        SetBatch(0)


def test_an_op_tied_to_its_batch_is_told_at_its_line() -> None:
    text = """
    graph @net(%x: f32[1,4]; @w: f32[1,4]) -> (%1) {
      %1: f32[1,4] = add(%x, @w) loc("net.py":3)
    }"""
    with pytest.raises(ShapeError, match=r"^net.py:3: add: operand b is f32\[1,4\]"):
        SetBatch(2)(parse_graph(text, OPS))
