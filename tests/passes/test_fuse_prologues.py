"""Operands made where they are read: the same bits from kernels that read the map before."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph, Value
from cnnc.ir.types import f32
from cnnc.ir.verify import verify_graph
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.elementwise import Add, Map, Mul, Relu, Sigmoid
from cnnc.ops.fused import Fused
from cnnc.ops.pool import MaxPool2d
from cnnc.ops.strassen import StrassenWeightGrad
from cnnc.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.passes.fuse_prologues import FusePrologues, feeds_contraction, find_prologues, prologue_refusal
from tests.goldens import Goldens, before, cases
from tests.nets import draw

NORM = Map("a * b + c")


@pytest.mark.parametrize("case", cases("fuse_prologues"))
def test_golden(case: str, goldens: Goldens) -> None:
    goldens.check_pass(FusePrologues(), case)


@pytest.mark.parametrize("case", cases("fuse_prologues"))
def test_results_keep_their_bits(case: str) -> None:
    graph = before("fuse_prologues", case)
    fused = FusePrologues()(graph)
    verify_graph(fused)
    assert len(fused.nodes) < len(graph.nodes)
    inputs, params = draw(graph.inputs, 1), draw(graph.params, 2)
    expected, found = evaluate(graph, inputs, params).outputs, evaluate(fused, inputs, params).outputs
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


class Net:
    """`x` [2,8,8,9] with a batch norm: what stands behind is up to the test."""

    def __init__(self) -> None:
        self.b = GraphBuilder("net")
        self.x = self.b.input("x", f32(2, 8, 8, 9))
        scale, shift = self.b.param("s", f32(8)), self.b.param("t", f32(8))
        self.normal = self.b.emit(NORM, self.x, scale, shift)

    def weights(self, maps: int, size: int = 1, groups: int = 1) -> Value:
        return self.b.param(self.b.fresh("w"), f32(maps, 8 // groups, size, size))

    def taken(self, *outputs: Value) -> int:
        """How many nodes become prologues in the graph with these outputs, and no more than that change."""
        graph = FuseEpilogues()(self.b.build(outputs))
        fused = FusePrologues()(graph)
        verify_graph(fused)
        found = find_prologues(graph)
        assert len(fused.nodes) == len(graph.nodes) - len(found)
        return len(found)


def test_contractions_of_one_tap_and_winograds_take_one() -> None:
    net = Net()
    y = net.b.emit(Relu(), net.normal)
    dy = net.b.input("dy", f32(2, 4, 8, 9))
    pad = (1, 1, 1, 1)
    u = net.b.emit(WinogradWeights((2, 2)), net.weights(4, 3))
    results = (
        net.b.emit(Conv2d(), y, net.weights(4)),
        net.b.emit(Conv2dWeightGrad(), dy, y),
        net.b.emit(WinogradConv2d((2, 2), (3, 3), pad), y, u),
        net.b.emit(WinogradWeightGrad((2, 2), (3, 3), pad), dy, y),
        net.b.emit(StrassenWeightGrad(), dy, y),
    )
    assert net.taken(*results) == 1


@pytest.mark.parametrize(
    "conv",
    [Conv2d(stride=(2, 2)), Conv2d(pad=(1, 1, 1, 1)), Conv2d(groups=2)],
    ids=["strided", "padded", "grouped"],
)
def test_other_convolutions_take_none(conv: Conv2d) -> None:
    net = Net()
    assert net.taken(net.b.emit(conv, net.normal, net.weights(4, groups=conv.groups))) == 0


def test_the_second_operand_is_never_made() -> None:
    net = Net()
    y = net.b.emit(Relu(), net.normal)
    assert net.taken(net.b.emit(Conv2dWeightGrad(), y, net.x)) == 0
    net = Net()
    assert net.taken(net.b.emit(Conv2dInputGrad(size=(8, 9)), net.normal, net.weights(8))) == 0


def refusal(net: Net, *outputs: Value) -> str | None:
    """Why the node that feeds a contraction does not become a prologue."""
    graph = FuseEpilogues()(net.b.build(outputs))
    (node,) = (node for node in graph.nodes if feeds_contraction(graph, node))
    return prologue_refusal(graph, node)


def test_refusals() -> None:
    net = Net()
    pool = net.b.emit(MaxPool2d((2, 2), (2, 2)), net.normal)
    assert (
        refusal(net, net.b.emit(Conv2d(), net.normal, net.weights(4)), pool)
        == f"max_pool2d %{pool.name} does not make what it reads"
    )
    net = Net()
    assert refusal(net, net.b.emit(Conv2d(), net.normal, net.weights(4)), net.normal) == "it is asked for"
    net = Net()
    dear = net.b.emit(Sigmoid(), net.normal)
    assert refusal(net, net.b.emit(Conv2d(), dear, net.weights(4))) == "it costs more than to read it"
    net = Net()
    several = net.b.emit(Add(), net.normal, net.b.input("other", net.x.type))
    assert refusal(net, net.b.emit(Conv2d(), several, net.weights(4))) == "it reads several maps"
    net = Net()
    twice = net.b.emit(Mul(), net.normal, net.x)
    assert refusal(net, net.b.emit(Conv2d(), twice, net.weights(4))) == "it reads several maps"
    net = Net()
    assert refusal(net, net.b.emit(Conv2d(), net.normal, net.weights(4))) is None


def test_a_value_that_an_epilogue_reads_as_well_is_stored() -> None:
    net = Net()
    y = net.b.emit(Add(), net.b.emit(Conv2d(), net.normal, net.weights(8)), net.normal)
    assert net.taken(y) == 0


def test_few_rows_are_not_shared_out() -> None:
    """A kernel that makes rows for all maps has no other iterations."""

    def graph(images: int) -> Graph:
        b = GraphBuilder("net")
        x, w = b.input("x", f32(images, 8, 5, 5)), b.param("w", f32(8, 8, 1, 1))
        return b.build([b.emit(Conv2d(), b.emit(Relu(), x), w)])

    assert [len(find_prologues(graph(images))) for images in (3, 4)] == [0, 1]


def test_what_held_the_prologue_back_holds_its_reader() -> None:
    """As where activations are computed again: else the reader would run, and keep its result, too early."""
    net = Net()
    early = net.b.emit(Map("a * 2.0"), net.x)
    (late,) = net.b.emit_all(Relu(), net.x, after=(early,))
    graph = net.b.build([early, net.b.emit(Conv2d(), late, net.weights(4))])
    *_, reader = FusePrologues()(graph).nodes
    assert isinstance(reader.op, Fused) and [v.name for v in reader.after] == [early.name]


def test_what_another_node_waits_for_stays() -> None:
    net = Net()
    y = net.b.emit(Conv2d(), net.normal, net.weights(4))
    (late,) = net.b.emit_all(MaxPool2d((2, 2), (2, 2)), net.x, after=(net.normal,))
    assert refusal(net, y, late) == "another node waits for it"
