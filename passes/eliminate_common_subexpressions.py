"""EliminateCommonSubexpressions: what is computed twice is computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.printer import print_attributes
from cnnc.passes.rewrite import Rewriter

_Key = tuple[str, str, tuple[Value, ...], tuple[Value, ...]]


@dataclass(frozen=True)
class EliminateCommonSubexpressions:
    """Nodes with equal ops and equal operands become one, the first.

        %1: f32[8] = relu(%x)            %1: f32[8] = relu(%x)
        %2: f32[8] = relu(%x)       ->   %3: f32[8] = add(%1, %1)
        %3: f32[8] = add(%1, %2)

    A node that computes an output stays, since the output's name is how a caller asks for it.
    """

    name: ClassVar[str] = "eliminate_common_subexpressions"

    def __call__(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        rewriter.declare()
        first: dict[_Key, tuple[Value, ...]] = {}
        for node in graph.nodes:
            key = _key(node, rewriter)
            if key in first and not any(r in graph.outputs for r in node.results):
                rewriter.new.update(zip(node.results, first[key], strict=True))
                continue
            rewriter.copy(node)
            first.setdefault(key, tuple(rewriter.new[r] for r in node.results))
        return rewriter.finish()


def _key(node: Node, rewriter: Rewriter) -> _Key:
    """Equal for nodes that compute the same at the same time.

    Attributes count by their text, because 0.0 == -0.0 and 1 == 1.0 == True in Python.
    """
    operands = tuple(rewriter.new[o] for o in node.operands)
    after = tuple(rewriter.new[v] for v in node.after)
    return node.op.name, print_attributes(node.op), operands, after
