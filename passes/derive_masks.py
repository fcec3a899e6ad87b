"""DeriveMasks: masks of activations are computed from what their batch norms were of.

The gradient of an activation behind a batch norm asks which of its results were positive, the sums of the
batch norm's own gradient read what it was of: one map of two suffices. Stands behind the lowering of batch
norms and before fusion, which makes one kernel of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ops.batch_sums import BatchNormSums
from cnnc.ops.elementwise import LETTERS, Elementwise, Map
from cnnc.ops.scalar import Expr, Var, is_cheap, substitute, variables
from cnnc.ops.scalar_text import print_expr
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class DeriveMasks:
    """A gradient of which the sums are computed reads what the sums read, not what was made of that.

    %1 = map(%x, %s, %t) {f="a * b + c"}            %1 = map(%x, %s, %t) {f="a * b + c"}
    %y = relu(%1)                                   %y = relu(%1)
    %2 = map(%dy, %y) {f="select(0.0 < b, a, ->     %2 = map(%dy, %x, %s, %t) {f="select(0.0 <
                                    0.0)"}                        max(b * c + d, 0.0), a, 0.0)"}
    %3, %4 = batch_norm_sums(%2, %x, %m)            %3, %4 = batch_norm_sums(%2, %x, %m)

    The same numbers are computed again, so no bit changes.
    """

    name: ClassVar[str] = "derive_masks"

    def __call__(self, graph: Graph) -> Graph:
        summed = {n.operands[0]: n.operands[1] for n in graph.nodes if isinstance(n.op, BatchNormSums)}
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            source = summed.get(node.results[0])
            derived = None if source is None else _derived(graph, node, source)
            if derived is None:
                rewriter.copy(node)
                continue
            op, operands = derived
            rewriter.copy(node, op, tuple(rewriter.new[o] for o in operands))
        return rewriter.finish()


def _derived(graph: Graph, node: Node, source: Value) -> tuple[Map, tuple[Value, ...]] | None:
    """The op and the operands that compute what an elementwise node does from `source`, where it reads what
    was made of that; None if it does not."""
    if not isinstance(node.op, Elementwise):
        return None
    made = {Var(o.name): _made_of(graph, o, source) for o in node.operands[1:]}
    replaced: dict[Expr, Expr] = {var: expr for var, expr in made.items() if expr is not None}
    if not replaced:
        return None
    expr = substitute(_by_names(node), replaced)
    first = node.operands[0]
    names = [first.name, *(name for name in variables(expr) if name != first.name)]
    if len(names) > len(LETTERS):
        return None
    letters: dict[Expr, Expr] = {Var(n): Var(letter) for n, letter in zip(names, LETTERS, strict=False)}
    return Map(print_expr(substitute(expr, letters))), tuple(graph.values[name] for name in names)


def _made_of(graph: Graph, value: Value, source: Value) -> Expr | None:
    """How `value` is computed from `source` and operands of lower rank, over their names; None if it is the
    source itself, or dear, or made of more."""
    node = graph.producer.get(value)
    if value.type != source.type or node is None or not isinstance(node.op, Elementwise):
        return None
    expr = _by_names(node)
    if not is_cheap(expr):
        return None
    replaced: dict[Expr, Expr] = {}
    for operand in node.operands:
        if operand == source or operand.type.rank < source.type.rank:
            continue
        inner = _made_of(graph, operand, source)
        if inner is None:
            return None
        replaced[Var(operand.name)] = inner
    return substitute(expr, replaced)


def _by_names(node: Node) -> Expr:
    """What an elementwise node computes, in the names of its operands."""
    assert isinstance(node.op, Elementwise)
    letters: dict[Expr, Expr] = {
        Var(letter): Var(o.name) for letter, o in zip(LETTERS, node.operands, strict=False)
    }
    return substitute(node.op.expr, letters)
