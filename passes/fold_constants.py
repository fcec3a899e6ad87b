"""FoldConstants: computes small constant results at compile time, by the ops' NumPy references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.types import Array
from cnnc.ops.shape import Constant


@dataclass(frozen=True)
class FoldConstants:
    """A node whose operands are all constant becomes a constant.

        %1: f32[] = constant() {value=(2.0,), ...}        %1: f32[] = constant() {value=(2.0,), ...}
        %2: f32[] = mul(%1, %1)                      ->   %2: f32[] = constant() {value=(4.0,), ...}

    Results of more than `limit` elements stay computed: they would weigh more than their computation.
    """

    name: ClassVar[str] = "fold_constants"
    limit: int = 64

    def __call__(self, graph: Graph) -> Graph:
        known: dict[Value, Array] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            if self._is_foldable(node, known):
                arrays = node.op.reference(*(known[o] for o in node.operands))
                known.update(zip(node.results, arrays, strict=True))
                nodes += [_constant(node, r, known[r]) for r in node.results]
            else:
                nodes.append(node)
        return graph.with_nodes(tuple(nodes))

    def _is_foldable(self, node: Node, known: Mapping[Value, Array]) -> bool:
        is_small = all(r.type.size <= self.limit for r in node.results)
        return is_small and all(o in known for o in node.operands)


def _constant(node: Node, result: Value, array: Array) -> Node:
    """The node that gives `result` the elements of `array`; constants themselves stay as they are."""
    if isinstance(node.op, Constant):
        return node
    elements = tuple(float(x) for x in array.ravel())
    op = Constant(elements, result.type.shape, result.type.dtype)
    return Node(op, (), (result,), node.layer, node.loc)
