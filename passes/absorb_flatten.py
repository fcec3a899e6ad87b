"""AbsorbFlatten: a dense layer reads the map itself, in whatever layout it lies in memory.

Row-major flattening would force the map into N,C,H,W before the product. A dense op contracts every
axis but the first, so the flattening can move to the weights, where it costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Trait
from cnnc.ir.types import TensorType
from cnnc.ops.dense import Dense
from cnnc.ops.shape import Reshape
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class AbsorbFlatten:
    """A dense op reads what its flattened operand was flattened from.

        graph @net(%x: f32[1,6,5,5]; @w: f32[9,150])      graph @net(%x: f32[1,6,5,5]; @w: f32[9,6,5,5])
          %1: f32[1,150] = flatten(%x)                 ->   %1: f32[1,150] = flatten(%x)
          %2: f32[1,9] = dense(%1, @w)                      %2: f32[1,9] = dense(%x, @w)

    The param takes another shape of the same elements in the same row-major order. If it has other
    readers, or weights are computed, they are reshaped by a node instead. The flatten node is left to
    dead code elimination.
    """

    name: ClassVar[str] = "absorb_flatten"

    def __call__(self, graph: Graph) -> Graph:
        sources = {i: s for i, n in enumerate(graph.nodes) if (s := _unflattened(graph, n)) is not None}
        weights = {i: graph.nodes[i].operands[1] for i in sources}
        private = {w: _weight_type(w, sources[i]) for i, w in weights.items() if _is_private(graph, w, i)}
        rewriter = Rewriter(graph)
        rewriter.declare(private)
        for index, node in enumerate(graph.nodes):
            if index in sources:
                _copy_absorbed(rewriter, node, sources[index])
            else:
                rewriter.copy(node)
        return rewriter.finish()


def _unflattened(graph: Graph, node: Node) -> Value | None:
    """The value that operand 0 of a dense node is a view of, if the view keeps the leading axis."""
    if not isinstance(node.op, Dense):
        return None
    view = graph.producer.get(node.operands[0])
    if view is None or not view.op.has(Trait.VIEW):
        return None
    source = view.operands[0]
    keeps_batch = source.type.rank > 1 and source.type.shape[0] == view.result.type.shape[0]
    return source if keeps_batch else None


def _is_private(graph: Graph, weights: Value, reader: int) -> bool:
    """Whether `weights` is a param that nothing but node `reader` knows of."""
    is_updated = any(param == weights for param, _ in graph.updates)
    is_only_read = graph.users[weights] == (reader,) and weights not in graph.results
    return weights in graph.params and is_only_read and not is_updated


def _weight_type(weights: Value, source: Value) -> TensorType:
    """The type of weights for a dense node that reads `source`."""
    return replace(weights.type, shape=(weights.type.shape[0], *source.type.shape[1:]))


def _copy_absorbed(rewriter: Rewriter, node: Node, source: Value) -> None:
    """Emit the dense node on `source`, with weights of the matching shape."""
    data, weights = rewriter.new[source], rewriter.new[node.operands[1]]
    wanted = _weight_type(weights, source)
    if weights.type != wanted:
        weights = rewriter.emit(node, Reshape(wanted.shape), weights, stem=f"{weights.name}.unflattened")
    rewriter.copy(node, operands=(data, weights))
