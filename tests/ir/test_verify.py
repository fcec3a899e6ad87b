"""Every rule of the layer graph, broken once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from cnnc.errors import VerifyError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.location import Location
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType, f32
from cnnc.ir.verify import verify_graph
from cnnc.ops.elementwise import Add, Relu
from cnnc.ops.fused import Fused

LOC = Location("net.py", 7)


@dataclass(frozen=True)
class Tagged(Op):
    """The identity with an attribute of no legal type."""

    name: ClassVar[str] = "tagged"
    tag: object

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        return operands


def sound() -> Graph:
    """%1 = relu(%x); %2 = add(%1, @w); update @w = %1."""
    builder = GraphBuilder("net")
    x, w = builder.input("x", f32(2, 3)), builder.param("w", f32(2, 3))
    with builder.at("layer", LOC):
        one = builder.emit(Relu(), x, name="1")
        two = builder.emit(Add(), one, w, name="2")
    return builder.build([two], [(w, one)])


def with_node(graph: Graph, index: int, **changes: object) -> Graph:
    nodes = list(graph.nodes)
    nodes[index] = replace(nodes[index], **changes)  # type: ignore[arg-type]
    return graph.with_nodes(tuple(nodes))


def value(name: str, *shape: int) -> Value:
    return Value(name, f32(*shape))


def relu_of_x(name: str) -> Node:
    return Node(Relu(), (value("x", 2, 3),), (value(name, 2, 3),), "", LOC)


def region_of(graph: Graph) -> Graph:
    """A graph of one fused node whose body is `graph`."""
    node = Node(Fused(graph), graph.inputs, (value("y", 2, 3),), "", LOC)
    return Graph("outer", graph.inputs, (), (node,), node.results)


BROKEN: dict[str, Callable[[Graph], Graph]] = {
    "the name '1' is assigned 2 times in graph 'net'": lambda g: with_node(g, 1, results=(value("1", 2, 3),)),
    "the name 'x' is assigned 2 times": lambda g: replace(g, params=(value("x", 2, 3),), updates=()),
    "relu has no result": lambda g: with_node(g, 0, results=()),
    "'x' is f32[0,3]: dimensions must be positive": lambda g: replace(g, inputs=(value("x", 0, 3),)),
    "'x' has the unknown dtype 'f16'": lambda g: replace(g, inputs=(Value("x", TensorType("f16", (2, 3))),)),
    "operand of relu %1: 'z' is not defined in graph 'net'": lambda g: with_node(
        g, 0, operands=(value("z", 2, 3),)
    ),
    "operand of relu %1: 'x' is used as f32[6] but defined as f32[2,3]": (
        lambda g: with_node(g, 0, operands=(value("x", 6),))
    ),
    "the dataflow of graph 'net' has a cycle: relu %1 -> add %2": (
        lambda g: with_node(g, 0, operands=(value("2", 2, 3),))
    ),
    "relu %1 waits: 'z' is not defined in graph 'net'": lambda g: with_node(g, 0, after=(value("z", 2, 3),)),
    "add %2 waits for '3', defined behind it": lambda g: g.with_nodes(
        (g.nodes[0], replace(g.nodes[1], after=(value("3", 2, 3),)), relu_of_x("3"))
    ),
    "add %2 reads '1' before it is defined": lambda g: g.with_nodes(g.nodes[::-1]),
    "add %2 has the result types (f32[6]), its op infers (f32[2,3])": (
        lambda g: replace(with_node(g, 1, results=(value("2", 6),)), outputs=())
    ),
    "add %2: takes 2 operands (operand a, operand b), got 1": lambda g: with_node(g, 1, operands=g.inputs),
    "tagged %1: attribute tag is [1], a list": lambda g: with_node(g, 0, op=Tagged([1])),
    "output: '9' is not defined": lambda g: replace(g, outputs=(value("9", 2, 3),)),
    "update: '9' is not defined": lambda g: replace(g, updates=((value("9", 2, 3), g.outputs[0]),)),
    "update of 'w': '9' is not defined": lambda g: replace(g, updates=((g.params[0], value("9", 2, 3)),)),
    "update of 'x', which is no param": lambda g: replace(g, updates=((g.inputs[0], g.outputs[0]),)),
    "the param 'w' is updated 2 times": lambda g: replace(g, updates=g.updates * 2),
    "fused %y: region body has params or updates": region_of,
    "fused %y: region body: add %2 reads '1' before it is defined": (
        lambda g: region_of(Graph("body", (*g.inputs, *g.params), (), g.nodes[::-1], g.outputs))
    ),
}


def test_a_sound_graph_passes() -> None:
    verify_graph(sound())
    verify_graph(Graph("empty"))


def test_one_value_may_be_two_outputs() -> None:
    graph = sound()
    verify_graph(replace(graph, outputs=graph.outputs * 2))


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_rule_is_named(message: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify_graph(BROKEN[message](sound()))
    assert caught.value.message.startswith(message)
    if not message.startswith(("the ", "output", "update", "'")):
        assert str(caught.value).startswith("net.py:7: ")


def test_an_update_keeps_the_type_of_its_param() -> None:
    graph = replace(sound(), updates=())
    smaller = replace(graph, params=(*graph.params, value("v", 2)))
    with pytest.raises(VerifyError, match=r"'v', which is f32\[2\], by '1', which is f32\[2,3\]"):
        verify_graph(replace(smaller, updates=((value("v", 2), value("1", 2, 3)),)))
