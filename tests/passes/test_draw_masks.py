"""DrawMasks: forward and backward multiply by one mask; the step is counted and begins anew in time."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import f32
from cnnc.ops.dropout import Dropout, DropoutMask
from cnnc.ops.elementwise import Mul
from cnnc.ops.reduce import Sum
from cnnc.passes.differentiate import Differentiate
from cnnc.passes.draw_masks import COUNTER, LAST, DrawMasks, first_step
from tests.goldens import Goldens, cases


@pytest.mark.parametrize("case", cases("draw_masks"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(DrawMasks(), case)


def weighted_sum() -> Graph:
    """sum(x * dropout(w))."""
    b = GraphBuilder("net")
    x, w = b.input("x", f32(3, 33)), b.param("w", f32(3, 33))
    return b.build([b.emit(Sum((0, 1)), b.emit(Mul(), b.emit(Dropout(0.5, 7), w), x))])


def test_the_gradient_has_the_mask_of_the_step() -> None:
    graph = Differentiate()(DrawMasks()(weighted_sum()))
    assert len(graph.outputs) == 2, "the counter is not differentiated by"
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 33)).astype(np.float32)
    step = np.array(11, np.float32)
    (mask,) = DropoutMask(0.5, 7, (3, 33)).reference(step)
    run = evaluate(graph, {"x": x}, {"w": w, COUNTER: step})
    loss, dw = (run.outputs[v.name] for v in graph.outputs)
    np.testing.assert_allclose(loss, (w * mask * x).sum(), rtol=1e-5)
    np.testing.assert_array_equal(dw, mask * x)
    assert run.params[COUNTER] == 12


def test_behind_the_last_step_comes_the_first() -> None:
    graph = DrawMasks()(weighted_sum())
    ones = {"x": np.ones((3, 33), np.float32)}
    for step, following in ((LAST - 1, LAST), (LAST, 0)):
        params = {"w": ones["x"], COUNTER: np.array(step, np.float32)}
        assert evaluate(graph, ones, params).params[COUNTER] == following


def test_the_counter_begins_at_zero() -> None:
    assert first_step(weighted_sum()) == {COUNTER: 0.0}
    assert first_step(GraphBuilder("empty").build([])) == {}
