"""The text form of the layer graph: what the printer writes the parser reads back, equal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.location import Location
from cnnc.ir.op import Op, Sample
from cnnc.ir.parser import parse_graph
from cnnc.ir.printer import print_graph
from cnnc.ir.types import TensorType, f32
from cnnc.ir.verify import verify_graph
from cnnc.ops import OPS
from tests.strategies import graphs


@dataclass(frozen=True)
class Everything(Op):
    """An op with an attribute of every kind; operands are its results."""

    name: ClassVar[str] = "everything"
    flag: bool
    whole: int
    real: float
    text: str
    ints: tuple[int, ...]
    reals: tuple[float, ...]
    either: int | str = 0

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        return operands


SMALL_OPS: Mapping[str, type[Op]] = {"everything": Everything}

REALS = st.one_of(st.floats(allow_nan=False), st.just(math.nan), st.sampled_from([math.inf, -math.inf, -0.0]))
EVERYTHING = st.builds(
    Everything,
    flag=st.booleans(),
    whole=st.integers(-(2**63), 2**63 - 1),
    real=REALS,
    text=st.text(),
    ints=st.lists(st.integers(-9, 9), max_size=3).map(tuple),
    reals=st.lists(REALS, max_size=3).map(tuple),
    either=st.one_of(st.integers(0, 9), st.text(max_size=3)),
)


def graph_of(op: Op, operands: Iterable[TensorType]) -> Graph:
    """A graph of that one node."""
    builder = GraphBuilder("g")
    values = [builder.input(f"x{i}", t) for i, t in enumerate(operands)]
    return builder.build(builder.emit_all(op, *values))


@given(graphs())
@settings(max_examples=50, deadline=None)
def test_generated_graphs_are_verified_and_round_trip(graph: Graph) -> None:
    verify_graph(graph)
    parsed = parse_graph(print_graph(graph), OPS)
    assert parsed == graph
    assert print_graph(parsed) == print_graph(graph)


@pytest.mark.parametrize("sample", [s for op in OPS.values() for s in op.samples()], ids=lambda s: s.op.name)
def test_every_sample_of_every_op_round_trips(sample: Sample) -> None:
    graph = graph_of(sample.op, sample.operands)
    verify_graph(graph)
    assert parse_graph(print_graph(graph), OPS) == graph


@given(EVERYTHING)
@settings(max_examples=100, deadline=None)
def test_attributes_of_every_kind_round_trip_exactly(op: Everything) -> None:
    parsed = parse_graph(print_graph(graph_of(op, [f32()])), SMALL_OPS).nodes[0].op
    # by repr, for which nan equals nan and 0.0 differs from -0.0
    assert repr(parsed) == repr(op)


def test_the_text_reads_as_documented() -> None:
    builder = GraphBuilder("net")
    x, w = builder.input("image", f32(1, 1, 8, 8)), builder.param("c1.weight", f32(4, 1, 3, 3))
    with builder.at("c1", Location("net.py", 12)):
        y = builder.emit(OPS["conv2d"](), x, w)
    new = builder.emit(OPS["add"](), w, w, name="new weight")
    text = print_graph(builder.build([y], [(w, new)]))
    assert text == (
        "graph @net(%image: f32[1,1,8,8]; @c1.weight: f32[4,1,3,3]) -> (%2) {\n"
        "  %2: f32[1,4,6,6] = conv2d(%image, @c1.weight)"
        ' {stride=(1,1), pad=(0,0,0,0), dilation=(1,1), groups=1} layer(c1) loc("net.py":12)\n'
        '  %"new weight": f32[4,1,3,3] = add(@c1.weight, @c1.weight)\n'
        '  update @c1.weight = %"new weight"\n'
        "}\n"
    )


def test_long_signatures_take_a_line_for_each_value() -> None:
    builder = GraphBuilder("net")
    x = builder.input("x", f32(1, 2))
    for index in range(12):
        builder.param(f"layer{index}.weight", f32(2))
    graph = builder.build([x])
    text = print_graph(graph)
    assert text.startswith("graph @net(\n  %x: f32[1,2];\n  @layer0.weight: f32[2],\n")
    assert max(map(len, text.splitlines())) < 110
    assert parse_graph(text, {}) == graph


def test_white_space_and_comments_are_free() -> None:
    text = "graph @g(%x: f32[2] # the image\n)->(%y){%y:f32[2]=relu(%x,)layer(a)}"
    graph = parse_graph(text, OPS)
    (x,), (node,) = graph.inputs, graph.nodes
    assert node == Node(OPS["relu"](), (x,), (Value("y", f32(2)),), "a")
    assert graph.outputs == node.results


def test_a_node_that_waits_round_trips() -> None:
    text = (
        "graph @g(%x: f32[2]) -> (%b) {\n"
        "  %a: f32[2] = relu(%x)\n"
        "  %b: f32[2] = tanh(%x) after(%a) layer(l)\n"
        "}\n"
    )
    graph = parse_graph(text, OPS)
    verify_graph(graph)
    assert graph.nodes[1].after == (Value("a", f32(2)),)
    assert list(graph.dataflow.edges()) == [(0, 1)]
    assert print_graph(graph) == text


def test_an_int_is_read_as_the_float_its_field_declares() -> None:
    attributes = 'flag=true, whole=1, real=2, text="", ints=(), reals=(3,)'
    text = f"graph @g() -> () {{ %1: f32[] = everything() {{{attributes}}} }}"
    op = parse_graph(text, SMALL_OPS).nodes[0].op
    assert repr(op) == repr(Everything(True, 1, 2.0, "", (), (3.0,)))


def test_an_attribute_the_text_cannot_hold_is_a_type_error() -> None:
    op = Everything(True, 1, 2.0, "", [1], ())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"an attribute cannot be \[1\] of type list"):
        print_graph(graph_of(op, [f32()]))
