"""What an algorithm computes on the way to a result is known as its own: `cnnc tune` counts it."""

from __future__ import annotations

import pytest

from cnnc.backend.algorithms.book import Algorithms
from cnnc.backend.target import TARGETS
from cnnc.explain import helpers
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.types import f32
from cnnc.ops.conv import Conv2d, Conv2dWeightGrad
from cnnc.passes.choose_algorithms import ChooseAlgorithms, Preferences
from cnnc.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.pipeline import compile_graph


@pytest.mark.parametrize(
    ("algorithm", "of_result", "of_gradient"),
    [
        ("direct", (), ()),
        ("by images", ("y.winograd_weights",), ("dw.partial_weight_grad",)),
        ("winograd 2x2", ("y.winograd_weights",), ()),
    ],
)
def test_helpers(algorithm: str, of_result: tuple[str, ...], of_gradient: tuple[str, ...]) -> None:
    b = GraphBuilder("net")
    x, dy = b.input("x", f32(8, 16, 9, 9)), b.input("dy", f32(8, 16, 9, 9))
    w = b.param("w", f32(16, 16, 3, 3))
    pad = (1, 1, 1, 1)
    (y,) = b.emit_all(Conv2d(pad=pad), x, w, names=("y",))
    (dw,) = b.emit_all(Conv2dWeightGrad(pad=pad, kernel=(3, 3)), dy, x, names=("dw",))
    target = TARGETS["avx2"]
    passes = (
        ChooseAlgorithms(Algorithms(target, train=True), Preferences(forced=algorithm)),
        EliminateCommonSubexpressions(),
        FuseEpilogues(),
    )
    found = helpers(compile_graph(b.build([y, dw]), passes, target))
    assert (found["y"], found["dw"]) == (of_result, of_gradient)
