"""Which convolutions are computed by Strassen's method, and that their results are the same."""

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

AVX2 = Algorithms(TARGETS["avx2"])


def graph(channels: int, maps: int, extent: int = 14, conv: Conv2d | None = None, taps: int = 1) -> Graph:
    """A convolution with both of its gradients."""
    conv = conv or Conv2d()
    b = GraphBuilder("net")
    x = b.input("x", f32(1, channels, extent, extent))
    w = b.param("w", f32(maps, channels // conv.groups, taps, taps))
    y = b.emit(conv, x, w)
    dy, common = b.input("dy", y.type), (conv.stride, conv.pad, conv.dilation, conv.groups)
    dx = b.emit(Conv2dInputGrad(*common, size=(extent, extent)), dy, w)
    return b.build([y, dx, b.emit(Conv2dWeightGrad(*common, kernel=(taps, taps)), dy, x)])


def names(net: Graph, book: Algorithms = AVX2, forced: str | None = None) -> list[str]:
    return [node.op.name for node in ChooseAlgorithms(book, Preferences(forced))(net).nodes]


@pytest.mark.parametrize(("channels", "maps"), [(8, 16), (24, 40), (64, 32)])
def test_results_are_those_of_the_convolution(channels: int, maps: int) -> None:
    net = graph(channels, maps, 5)
    rewritten = ChooseAlgorithms(AVX2, Preferences("strassen"))(net)
    given = {name: array.astype(np.float64) for name, array in feeds(net, seed=1).items()}
    inputs, params = ({v.name: given[v.name] for v in values} for values in (net.inputs, net.params))
    expected, found = (evaluate(g, inputs, params).outputs for g in (net, rewritten))
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-12 * np.abs(array).max())


def test_both_directions_and_weight_gradients() -> None:
    pair = ["strassen_weights", "strassen_conv2d"]
    assert names(graph(64, 64), forced="strassen") == [*pair, *pair, "strassen_weight_grad"]


def test_weight_gradients_by_images() -> None:
    dy, x = f32(6, 48, 5, 3), f32(6, 32, 5, 3)
    b = GraphBuilder("net")
    net = b.build([b.emit(Conv2dWeightGrad(), b.input("dy", dy), b.input("x", x))])
    preferences = Preferences("strassen by images")
    rewritten = ChooseAlgorithms(AVX2, preferences)(net)
    assert [node.op.name for node in rewritten.nodes] == ["partial_strassen_weight_grad", "sum_parts"]
    assert names(graph(64, 64), forced="strassen by images")[-1] == "conv2d_weight_grad"
    given = {name: array.astype(np.float64) for name, array in feeds(net, seed=1).items()}
    (expected,), (found,) = (evaluate(g, given, {}).outputs.values() for g in (net, rewritten))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(
    "net",
    [
        graph(64, 64, conv=Conv2d((2, 2))),
        graph(64, 64, conv=Conv2d(pad=(1, 1, 1, 1))),
        graph(64, 64, conv=Conv2d(groups=2)),
        graph(64, 64, taps=3),
        graph(60, 64),
        graph(64, 60),
    ],
)
def test_others_stay_as_they_are(net: Graph) -> None:
    assert not [name for name in names(net, forced="strassen") if "strassen" in name]


def test_wide_layers_are_computed_so_and_narrow_ones_are_not() -> None:
    assert names(graph(256, 256)).count("strassen_conv2d") == 2
    assert "strassen_weight_grad" in names(graph(256, 256))
    assert not [name for name in names(graph(16, 16)) if "strassen" in name]


def test_in_training_the_weights_stay_in_wide_blocks() -> None:
    """A half of 112 maps is 7 vectors, which only blocks of one divide: their gradient would suffer."""
    train = Algorithms(TARGETS["avx2"], train=True)
    pair = ["strassen_weights", "strassen_conv2d"]
    assert names(graph(512, 112, 56))[:2] == pair
    assert names(graph(512, 112, 56), train)[0] == "conv2d"
    assert names(graph(512, 96, 56), train)[:2] == pair


def test_strictly_they_are_not() -> None:
    strict = Algorithms(TARGETS["avx2"], strict=True)
    assert not [name for name in names(graph(256, 256), strict) if "strassen" in name]
