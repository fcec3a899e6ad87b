"""SetBatch: gives every input another leading dimension and infers all types anew.

A network is declared for one image; compiling it for a batch is this pass, first in the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cnnc.errors import CnncError
from cnnc.ir.graph import Graph, Node
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType
from cnnc.ops.shape import Reshape
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class SetBatch:
    """Run for `batch` images at a time. Inputs of rank 0, such as a learning rate, stay.

    with SetBatch(8):

        graph @net(%x: f32[1,3,8,8]; @w: f32[4,3,3,3])     graph @net(%x: f32[8,3,8,8]; @w: f32[4,3,3,3])
          %1: f32[1,4,6,6] = conv2d(%x, @w)             ->   %1: f32[8,4,6,6] = conv2d(%x, @w)
          %2: f32[1,144] = flatten(%1)                       %2: f32[8,144] = flatten(%1)

    Raises CnncError if `batch` is not positive, ShapeError where an op does not fit that batch.
    """

    name: ClassVar[str] = "set_batch"
    batch: int

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise CnncError(f"the batch must be positive, not {self.batch}")

    def __call__(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        rewriter.declare({value: with_batch(value.type, self.batch) for value in graph.inputs})
        for node in graph.nodes:
            operands = tuple(rewriter.new[o].type for o in node.operands)
            rewriter.copy(node, _resized(node, operands))
        return rewriter.finish()


def with_batch(type: TensorType, batch: int) -> TensorType:
    """The type with another leading dimension, if it has any."""
    return replace(type, shape=(batch, *type.shape[1:])) if type.rank else type


def _resized(node: Node, operands: tuple[TensorType, ...]) -> Op:
    """The node's op; a reshape that keeps its operand's leading dimension keeps the new one."""
    if not isinstance(node.op, Reshape) or not node.op.shape or not operands[0].rank:
        return node.op
    if node.op.shape[0] != node.operands[0].type.shape[0]:
        return node.op
    return Reshape((operands[0].shape[0], *node.op.shape[1:]))
