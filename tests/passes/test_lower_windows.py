"""Windows are lowered to what kernels compute, and the results stay the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnc.errors import ShapeError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import f32
from cnnc.ir.verify import verify_graph
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.passes.differentiate import gradient_graph
from cnnc.passes.lower_windows import LowerWindows
from tests.goldens import Goldens, cases
from tests.nets import draw, residual, tiny_lenet


@pytest.mark.parametrize("case", cases("lower_windows"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(LowerWindows(), case)


def check_same_results(graph: Graph) -> Graph:
    """The lowered graph, after checking it in float64."""
    lowered = LowerWindows()(graph)
    verify_graph(lowered)
    inputs, params = draw(graph.inputs, 1, np.float64), draw(graph.params, 2, np.float64)
    expected, found = evaluate(graph, inputs, params), evaluate(lowered, inputs, params)
    for name, array in expected.outputs.items():
        np.testing.assert_allclose(found.outputs[name], array, rtol=1e-12, atol=1e-12)
    return lowered


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_convolution_and_its_gradients(data: st.DataObject) -> None:
    """Afterwards no weight gradient is padded, and all else is as it was."""
    pair, pad = st.tuples(*[st.integers(1, 4)] * 2), st.tuples(*[st.integers(0, 6)] * 4)
    conv = Conv2d(data.draw(pair), data.draw(pad), data.draw(pair), data.draw(st.sampled_from((1, 2))))
    x = f32(1, 2, data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)))
    w = f32(4, 2 // conv.groups, *data.draw(pair))
    try:
        (y,) = conv.infer(x, w)
    except ShapeError:
        assume(False)
    b = GraphBuilder("net")
    image, weight, dy = b.input("x", x), b.input("w", w), b.input("dy", y)
    common = (conv.stride, conv.pad, conv.dilation, conv.groups)
    dx = Conv2dInputGrad(*common, size=(x.shape[2], x.shape[3]))
    dw = Conv2dWeightGrad(*common, kernel=(w.shape[2], w.shape[3]))
    results = [b.emit(conv, image, weight), b.emit(dx, dy, weight), b.emit(dw, dy, image)]
    for node in check_same_results(b.build(results)).nodes:
        assert not (isinstance(node.op, Conv2dWeightGrad) and any(node.op.pad))
        assert node.op.name in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "pad2d")


def test_whole_networks() -> None:
    for loss_graph in (tiny_lenet(), residual()):
        check_same_results(gradient_graph(loss_graph, [v.name for v in loss_graph.params]))


def test_layers_and_locations_are_those_of_the_convolution() -> None:
    loss_graph = residual()
    lowered = LowerWindows()(gradient_graph(loss_graph, ["shared.weight"]))
    added = [node for node in lowered.nodes if node.op.name == "pad2d"]
    assert added and all(node.loc.line for node in added)
