"""JoinInputGrads: gradients of one value by several convolutions of one tap are computed as one.

Where branches begin with convolutions of one tap of the same value (Szegedy et al. 2015, "Going deeper with
convolutions"), its gradient is the sum of theirs: one contraction over all channels keeps it in registers,
where one for each branch would read the sum so far and write it. Stands behind autodiff and before the choice
of algorithms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ops.concat import Concat
from cnnc.ops.conv import Conv2dInputGrad
from cnnc.ops.elementwise import Add
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class JoinInputGrads:
    """Of the terms of a sum, input gradients of one tap become one; what they read is joined without copies.

    %3 = conv2d_input_grad(%1, @v)            %7.dy = concat(%1, %2) {axis=1}
    %4 = conv2d_input_grad(%2, @w)            %7.weights = concat(@v, @w) {axis=0}
    %6 = add(%5, %3)                    ->    %7.joined = conv2d_input_grad(%7.dy, %7.weights)
    %7 = add(%6, %4)                          %7 = add(%5, %7.joined)
    """

    name: ClassVar[str] = "join_input_grads"

    def __call__(self, graph: Graph) -> Graph:
        sums = {total.root.result: total for total in _sums(graph)}
        inner = {node.result for total in sums.values() for node in (*total.gradients, *total.additions)}
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            if node.results[0] in sums:
                _join(rewriter, sums[node.result])
            elif inner.isdisjoint(node.results):
                rewriter.copy(node)
        return rewriter.finish()


@dataclass(frozen=True)
class _Sum:
    """An addition that no other one takes up, those it takes up itself, the input gradients among its terms
    that can be joined, and the other terms."""

    root: Node
    additions: tuple[Node, ...]
    gradients: tuple[Node, ...]
    others: tuple[Value, ...]


def _sums(graph: Graph) -> Iterator[_Sum]:
    """Those with several gradients to join."""
    taken: set[Value] = set()
    for root in reversed(graph.nodes):
        if not isinstance(root.op, Add) or root.result in taken:
            continue
        additions, terms = _terms(graph, root)
        taken.update(node.result for node in additions)
        gradients = [node for value in terms if (node := _gradient(graph, value, root.result))]
        alike = tuple(node for node in gradients if node.op == gradients[0].op)
        joined = {node.result for node in alike}
        if len(joined) > 1:
            yield _Sum(root, additions, alike, tuple(value for value in terms if value not in joined))


def _terms(graph: Graph, root: Node) -> tuple[tuple[Node, ...], list[Value]]:
    """The additions that `root` alone takes up, also through each other, and what all of them add."""
    additions: list[Node] = []
    terms: list[Value] = []
    waiting = list(reversed(root.operands))
    while waiting:
        value = waiting.pop()
        producer = graph.producer.get(value)
        if producer is not None and isinstance(producer.op, Add) and _is_private(graph, value, root.result):
            additions.append(producer)
            waiting += reversed(producer.operands)
        else:
            terms.append(value)
    return tuple(additions), terms


def _gradient(graph: Graph, value: Value, total: Value) -> Node | None:
    """The input gradient of one tap that computes a value for one addition to a sum alone."""
    node = graph.producer.get(value)
    if node is None or not isinstance(node.op, Conv2dInputGrad) or not _is_private(graph, value, total):
        return None
    is_plain = node.op.groups == 1 and node.op.is_pointwise(node.operands[1].type.shape)
    return node if is_plain else None


def _is_private(graph: Graph, value: Value, total: Value) -> bool:
    """Whether one node reads a value, of the type of the sum, and nobody asks for it."""
    return value.type == total.type and graph.is_private(value)


def _join(rewriter: Rewriter, total: _Sum) -> None:
    """Emit one gradient, on behalf of the last, and add the other terms; the last node has the sum's name."""
    root, (*_, last) = total.root, total.gradients
    stem, emit = root.result.name, rewriter.emit
    dys, weights = (
        tuple(rewriter.new[node.operands[position]] for node in total.gradients) for position in (0, 1)
    )
    dy = emit(last, Concat(axis=1), *dys, stem=f"{stem}.dy")
    weight = emit(last, Concat(axis=0), *weights, stem=f"{stem}.weights")
    if not total.others:
        rewriter.copy(replace(last, results=root.results), operands=(dy, weight))
        return
    joined = emit(last, last.op, dy, weight, stem=f"{stem}.joined")
    first, *others = (rewriter.new[value] for value in total.others)
    for other in others:
        first = emit(root, Add(), first, other, stem=f"{stem}.others")
    rewriter.copy(root, operands=(first, joined))
