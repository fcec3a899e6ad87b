"""Reverse-mode differentiation on the graph: the backward pass is made of ordinary nodes.

Each node is visited once, last first, with the gradient of the loss with respect to its results,
and asks its op for the gradients of its operands (Griewank and Walther, "Evaluating Derivatives",
chapter 3: the incremental reverse mode). What the backward nodes do not need is left to
passes/eliminate_dead_code.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cnnc.errors import CnncError, ShapeError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.location import UNKNOWN
from cnnc.ops.elementwise import Add
from cnnc.ops.shape import Constant, Reshape


@dataclass(frozen=True)
class Differentiate:
    """The gradients of the first output, the loss, become further outputs.

    `wrt` names the inputs, params or results to differentiate by; None means all params that no update
    assigns, in their order. Backward nodes keep the layer and the location of their forward node. Raises
    ShapeError if the loss is no float scalar, CnncError for a graph without outputs or a name it does not
    have.

    graph @net(%x; @w) -> (%2) {            graph @net(%x; @w) -> (%2, %5) {
      %1 = mul(%x, @w)                        %1 = mul(%x, @w)
      %2 = sum(%1)                     ->     %2 = sum(%1)
    }                                         %3 = constant() {value=(1.0,)}
                                              %4 = broadcast(%3)
                                              %5 = map(%4, %x) {f="a * b"}
                                            }
    """

    name: ClassVar[str] = "differentiate"
    wrt: tuple[str, ...] | None = None

    def __call__(self, graph: Graph) -> Graph:
        if not graph.outputs:
            raise CnncError(f"{graph.name} has no output, so there is no loss to differentiate")
        names = [p.name for p in graph.trained] if self.wrt is None else self.wrt
        unknown = [name for name in names if name not in graph.values]
        if unknown:
            raise CnncError(f"{graph.name} has no value {unknown[0]!r} to differentiate by")
        builder = GraphBuilder.extend(graph)
        gradients = differentiate(builder, graph, graph.outputs[0], [graph.values[n] for n in names])
        outputs = list(graph.outputs)
        for gradient in gradients:
            outputs.append(_distinct(builder, gradient, outputs))
        return builder.build(outputs, graph.updates)


def gradient_graph(loss_graph: Graph, wrt_names: Sequence[str]) -> Graph:
    """The loss graph, its outputs followed by the gradients of the first one by `wrt_names`."""
    return Differentiate(tuple(wrt_names))(loss_graph)


def differentiate(
    builder: GraphBuilder, graph: Graph, loss: Value, wrt: Sequence[Value]
) -> tuple[Value, ...]:
    """Append to `builder` the nodes that compute d loss / d w for each w of `wrt`, in its order.

    `builder` holds the nodes of `graph` already (`GraphBuilder.extend(graph)`); `loss` and `wrt`
    are values of `graph`. One the loss does not depend on gets zeros. Raises ShapeError if the
    loss is no float scalar.
    """
    if loss.type.rank != 0 or loss.type.dtype == "i32":
        raise ShapeError(f"a loss is a float scalar; {loss.name!r} is {loss.type}: reduce it first")
    tape = _Tape(builder, {})
    source = graph.producer.get(loss)
    with builder.at(*((source.layer, source.loc) if source else ("", UNKNOWN))):
        tape.add(loss, _filled(builder, loss, 1.0))
    varying = _dependent(graph, wrt)
    for node in reversed(graph.nodes):
        if not varying.isdisjoint(node.results) and any(r in tape.gradients for r in node.results):
            with builder.at(node.layer, node.loc):
                _propagate(tape, node, varying)
    return tuple(tape.gradients.get(w) or _filled(builder, w, 0.0) for w in wrt)


@dataclass(frozen=True)
class _Tape:
    """The gradient of every value reached so far, summed over the readers visited so far."""

    builder: GraphBuilder
    gradients: dict[Value, Value]

    def add(self, value: Value, gradient: Value) -> None:
        known = self.gradients.get(value)
        self.gradients[value] = gradient if known is None else self.builder.emit(Add(), known, gradient)


def _propagate(tape: _Tape, node: Node, varying: set[Value]) -> None:
    """Hand the gradients of a node's results to those of its operands that depend on `wrt`."""
    incoming = [tape.gradients.get(r) or _filled(tape.builder, r, 0.0) for r in node.results]
    outgoing = node.op.grad(tape.builder, node.operands, node.results, incoming)
    for operand, gradient in zip(node.operands, outgoing, strict=True):
        if gradient is not None and operand in varying:
            tape.add(operand, gradient)


def _dependent(graph: Graph, wrt: Sequence[Value]) -> set[Value]:
    """`wrt` and every value computed from it."""
    found = set(wrt)
    for node in graph.nodes:
        if not found.isdisjoint(node.operands):
            found.update(node.results)
    return found


def _filled(builder: GraphBuilder, like: Value, number: float) -> Value:
    return builder.emit(Constant((number,), like.type.shape, like.type.dtype))


def _distinct(builder: GraphBuilder, value: Value, outputs: Sequence[Value]) -> Value:
    """`value`, or a view of it if it is an output already: outputs are known by their names."""
    return builder.emit(Reshape(value.type.shape), value) if value in outputs else value
