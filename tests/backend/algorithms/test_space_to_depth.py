"""Strided convolutions over blocks of pixels: which are suited, and that their results are the same."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.backend.algorithms.book import Algorithms
from cnnc.backend.target import TARGETS
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import f32
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.passes.choose_algorithms import ChooseAlgorithms, Preferences
from tests.strategies import feeds

BOOK = Algorithms(TARGETS["avx512"], train=True)
Case = tuple[tuple[int, ...], int, Conv2d]

SUITED: tuple[Case, ...] = (
    # input, taps, convolution
    ((2, 3, 20, 22), 7, Conv2d((2, 2), (3, 3, 3, 3))),
    ((1, 3, 21, 23), 7, Conv2d((2, 2), (3, 3, 3, 3))),
    ((1, 3, 31, 27), 11, Conv2d((4, 4), (2, 2, 2, 2))),
    ((1, 5, 16, 15), 5, Conv2d((2, 2), (0, 1, 2, 3))),
    ((1, 3, 13, 17), 7, Conv2d((2, 2))),
)
OTHERS: tuple[Case, ...] = (
    ((1, 64, 14, 14), 3, Conv2d((2, 2), (1, 1, 1, 1))),
    ((1, 3, 20, 20), 7, Conv2d((1, 1), (3, 3, 3, 3))),
    ((1, 3, 20, 20), 7, Conv2d((2, 2), (3, 3, 3, 3), (2, 2))),
    ((1, 8, 20, 20), 7, Conv2d((2, 2), (3, 3, 3, 3), groups=4)),
    ((1, 1, 20, 20), 7, Conv2d((2, 2), (3, 3, 3, 3))),
)


def graph(case: Case, maps: int = 16) -> Graph:
    """The convolution and its weight gradient."""
    size, taps, conv = case
    b = GraphBuilder("net")
    x = b.input("x", f32(*size))
    w = b.param("w", f32(maps, size[1] // conv.groups, taps, taps))
    y = b.emit(conv, x, w)
    gradient = Conv2dWeightGrad(conv.stride, conv.pad, conv.dilation, conv.groups, (taps, taps))
    return b.build([y, b.emit(gradient, b.input("dy", y.type), x)])


def rewritten(net: Graph, tile: str = "") -> Graph:
    return ChooseAlgorithms(BOOK, Preferences(forced=f"space_to_depth winograd {tile}"))(net)


@pytest.mark.parametrize("case", SUITED, ids=str)
@pytest.mark.parametrize("tile", ["5x5", "4x4", "2x2"])
def test_results_are_those_of_the_strided_convolution(case: Case, tile: str) -> None:
    net = graph(case)
    given = {name: array.astype(np.float64) for name, array in feeds(net, seed=1).items()}
    inputs, params = ({v.name: given[v.name] for v in values} for values in (net.inputs, net.params))
    expected, found = (evaluate(g, inputs, params).outputs for g in (net, rewritten(net, tile)))
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-9 * np.abs(array).max())


@pytest.mark.parametrize("case", SUITED, ids=str)
def test_both_directions_are_suited(case: Case) -> None:
    names = [node.op.name for node in rewritten(graph(case)).nodes]
    forward = ["space_to_depth", "space_to_depth", "winograd_weights", "winograd_conv2d"]
    some = ["partial_winograd_weight_grad", "sum_parts"]
    gradient = some if case[0][0] > 1 else ["winograd_weight_grad"]
    assert names == [*forward, "space_to_depth", *gradient, "depth_to_space"]


@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_other_convolutions_stay_as_they_are(case: Case) -> None:
    names = {node.op.name for node in rewritten(graph(case)).nodes}
    assert "space_to_depth" not in names


def test_input_gradients_stay_as_they_are() -> None:
    b = GraphBuilder("net")
    dy, w = b.input("dy", f32(1, 16, 10, 10)), b.param("w", f32(16, 3, 7, 7))
    net = b.build([b.emit(Conv2dInputGrad((2, 2), (3, 3, 3, 3), size=(20, 20)), dy, w)])
    assert [node.op.name for node in rewritten(net).nodes] == ["conv2d_input_grad"]


def test_large_first_layers_are_computed_so() -> None:
    net = graph(((8, 3, 224, 224), 7, Conv2d((2, 2), (3, 3, 3, 3))), maps=64)
    names = {node.op.name for node in ChooseAlgorithms(BOOK)(net).nodes}
    assert {"space_to_depth", "winograd_conv2d", "partial_winograd_weight_grad"} <= names
