"""Bodies: the graphs of regions, which one kernel computes each. What stands where in one is said here.

A body is a prologue, an anchor and an epilogue: elementwise nodes that make an operand of the anchor, the
node whose kernel computes the region, and what is applied to its results.
"""

from __future__ import annotations

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Trait


def anchor_position(body: Graph) -> int:
    """Index of the anchor: of the first node that is not elementwise, or 0 if all are."""
    nodes = enumerate(body.nodes)
    return next((index for index, node in nodes if not node.op.has(Trait.ELEMENTWISE)), 0)


def prologue_of(body: Graph, operand: Value) -> tuple[Node, ...]:
    """The nodes of the prologue that make an operand of the anchor, in order; none if it is given."""
    node = body.producer.get(operand)
    return () if node is None else (*prologue_of(body, node.operands[0]), node)


def source_of(body: Graph, operand: Value) -> Value:
    """The input of the body that an operand of the anchor is, or is made of by the prologue."""
    nodes = prologue_of(body, operand)
    return nodes[0].operands[0] if nodes else operand
