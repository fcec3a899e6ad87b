"""DropDropout: outside training dropout is nothing. Its counterpart in training is passes/draw_masks.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cnnc.ir.graph import Graph
from cnnc.ops.dropout import Dropout
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class DropDropout:
    """Readers of a dropout read its operand.

        %1: f32[1,8] = relu(%x)                            %1: f32[1,8] = relu(%x)
        %2: f32[1,8] = dropout(%1) {rate=0.5, seed=7}  ->  %3: f32[1,4] = dense(%1, @w)
        %3: f32[1,4] = dense(%2, @w)

    One that computes an output stays, a copy, since the output's name is how a caller asks for it.
    """

    name: ClassVar[str] = "drop_dropout"

    def __call__(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            if isinstance(node.op, Dropout) and node.result not in graph.outputs:
                rewriter.new[node.result] = rewriter.new[node.operands[0]]
            else:
                rewriter.copy(node)
        return rewriter.finish()
