"""Algorithms are chosen by the costs given, and rewriting keeps the results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnc.backend.algorithms.book import ALGORITHMS, Algorithms
from cnnc.backend.target import TARGETS
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import f32
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.passes.choose_algorithms import ChooseAlgorithms, Preferences, choice_key, choose
from tests.goldens import Goldens, before, cases
from tests.strategies import feeds

BOOK = Algorithms(TARGETS["avx2"])


def graph() -> Graph:
    return before("choose_algorithms", "training")


@pytest.mark.parametrize("case", cases("choose_algorithms"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(ChooseAlgorithms(BOOK, Preferences(forced="winograd 4x4")), case)


@pytest.mark.parametrize("forced", [a.name for a in ALGORITHMS])
def test_results_are_the_same_whatever_is_forced(forced: str) -> None:
    given = {n: a.astype(np.float64) for n, a in feeds(graph(), seed=3).items()}
    inputs = {v.name: given[v.name] for v in graph().inputs}
    params = {v.name: given[v.name] for v in graph().params}
    chosen = ChooseAlgorithms(BOOK, Preferences(forced=forced))(graph())
    expected, found = evaluate(graph(), inputs, params), evaluate(chosen, inputs, params)
    for name, array in expected.outputs.items():
        np.testing.assert_allclose(found.outputs[name], array, rtol=0, atol=1e-9 * np.abs(array).max())


def test_reasons_are_told_apart() -> None:
    conv, *_, pointwise = graph().nodes
    key = choice_key(conv.op, tuple(o.type for o in conv.operands))
    preferences = Preferences(tuned={key: "winograd 2x2"})
    found = [
        choose(conv, BOOK, Preferences()),
        choose(conv, BOOK, Preferences(forced="direct")),
        choose(conv, BOOK, preferences),
        choose(pointwise, replace(BOOK, strict=True), preferences),
    ]
    assert [c.reason for c in found if c] == ["predicted", "forced", "measured", "only"]
    assert [c.chosen.algorithm for c in found[1:] if c] == ["direct", "winograd 2x2", "direct"]


def test_a_strict_book_has_direct_algorithms_only() -> None:
    choices = [
        choose(node, Algorithms(TARGETS["avx2"], strict=True), Preferences()) for node in graph().nodes
    ]
    assert [c.chosen.algorithm for c in choices if c] == ["direct"] * 4


def test_weight_gradients_of_large_maps_are_shared_out_by_images() -> None:
    """Those of a first layer, but not those of a late one, whose maps stay in the caches."""
    for x, maps, kernel, shared in ((f32(6, 3, 224, 224), 64, 7, True), (f32(6, 64, 14, 14), 64, 1, False)):
        b = GraphBuilder("net")
        (dy,) = Conv2d().infer(x, f32(maps, x.shape[1], kernel, kernel))
        dw = b.emit(Conv2dWeightGrad(kernel=(kernel, kernel)), b.input("dy", dy), b.input("x", x))
        names = [node.op.name for node in ChooseAlgorithms(BOOK)(b.build([dw])).nodes]
        assert names == (["partial_weight_grad", "sum_parts"] if shared else ["conv2d_weight_grad"])


def test_gradients_by_images_add_up() -> None:
    b = GraphBuilder("net")
    dy, x = b.input("dy", f32(6, 5, 7, 7)), b.input("x", f32(6, 3, 9, 9))
    net = b.build([b.emit(Conv2dWeightGrad(kernel=(3, 3)), dy, x)])
    shared = ChooseAlgorithms(BOOK, Preferences(forced="by images"))(net)
    assert [node.op.name for node in shared.nodes] == ["partial_weight_grad", "sum_parts"]
    inputs = {n: a.astype(np.float64) for n, a in feeds(net, seed=5).items()}
    (expected,), (found,) = (evaluate(g, inputs, {}).outputs.values() for g in (net, shared))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "name"), [(56, "winograd"), (7, "direct")])
def test_convolutions_at_stride_2_have_winograd_algorithms_too(size: int, name: str) -> None:
    """Chosen for large maps; their input gradients have none."""
    pad, step = (1, 1, 1, 1), (2, 2)
    x, w = f32(8, 64, size, size), f32(128, 64, 3, 3)
    (y,) = Conv2d(step, pad).infer(x, w)
    b = GraphBuilder("net")
    result = b.emit(Conv2d(step, pad), b.input("x", x), b.input("w", w))
    gradient = Conv2dInputGrad(step, pad, size=(size, size))
    b.emit(gradient, b.input("dy", y), b.input("v", w))
    book = Algorithms(TARGETS["avx512"], train=True)
    forward, backward = (choose(node, book, Preferences()) for node in b.build([result]).nodes)
    assert forward and forward.chosen.algorithm.startswith(name)
    assert backward and [c.algorithm for c in backward.candidates] == ["direct"]
