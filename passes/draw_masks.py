"""DrawMasks: in training, dropout is a product with a mask that is drawn anew in every step.

Stands in front of autodiff, so that the backward pass multiplies by the same mask, and in front of
passes/absorb_flatten.py. Inference uses passes/drop_dropout.py instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Trait
from cnnc.ir.types import f32
from cnnc.ops.dropout import Dropout, DropoutMask
from cnnc.ops.elementwise import Map, Mul
from cnnc.passes.rewrite import Rewriter

COUNTER = "dropout.step"
"""Name of the param f32[] that counts the steps; it is there if anything is dropped."""

LAST = 2.0**24 - 1
"""The largest step: 2 ** 24 is the first whole number of which float32 cannot tell the next."""


@dataclass(frozen=True)
class DrawMasks:
    """Each dropout becomes a mask, drawn by the step's number, and a product; the step is counted.

    graph @net(%x; @w) -> (%2) {                graph @net(%x; @w, @dropout.step) -> (%2) {
      %1 = dropout(%x) {rate=0.5, seed=7}   ->    %1.mask = dropout_mask(@dropout.step) {rate=0.5, ...}
      %2 = dense(%1, @w)                          %dropout.next = map(@dropout.step) {f="..."}
    }                                             %1 = mul(%x, %1.mask)
                                                  %2 = dense(%1, @w)
                                                  update @dropout.step = %dropout.next
                                                }

    What drops a flattened map drops the map, of which the flattened one stays a view. Behind step LAST
    comes step 0 again.
    """

    name: ClassVar[str] = "draw_masks"

    def __call__(self, graph: Graph) -> Graph:
        first = next((n for n in graph.nodes if isinstance(n.op, Dropout)), None)
        if first is None:
            return graph
        counter = Value(COUNTER, f32())
        graph = replace(graph, params=(*graph.params, counter))
        rewriter = Rewriter(graph)
        rewriter.declare()
        following = rewriter.emit(
            first, Map(f"select(a < {LAST}, a + 1.0, 0.0)"), rewriter.new[counter], stem="dropout.next"
        )
        for node in graph.nodes:
            if isinstance(node.op, Dropout):
                _copy_dropped(rewriter, graph, node, node.op, rewriter.new[counter])
            else:
                rewriter.copy(node)
        finished = rewriter.finish()
        return replace(finished, updates=(*finished.updates, (rewriter.new[counter], following)))


def first_step(graph: Graph) -> dict[str, float]:
    """The counter's value before the first step, by its name, if the graph drops anything."""
    return {COUNTER: 0.0} if any(isinstance(node.op, Dropout) for node in graph.nodes) else {}


def _copy_dropped(rewriter: Rewriter, graph: Graph, node: Node, op: Dropout, counter: Value) -> None:
    """Emit the mask and the product in the place of a dropout, in front of a view if it dropped one."""
    view = graph.producer.get(node.operands[0])
    dropped = view.operands[0] if view is not None and view.op.has(Trait.VIEW) else node.operands[0]
    stem = node.result.name
    mask_op = DropoutMask(op.rate, op.seed, dropped.type.shape)
    mask = rewriter.emit(node, mask_op, counter, stem=f"{stem}.mask")
    if dropped == node.operands[0]:
        rewriter.copy(node, Mul(), (rewriter.new[dropped], mask))
        return
    assert view is not None
    product = rewriter.emit(node, Mul(), rewriter.new[dropped], mask, stem=f"{stem}.kept")
    rewriter.copy(node, view.op, (product,))
