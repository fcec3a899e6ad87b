"""FusePrologues: what makes an operand of a contraction is computed as its kernel reads it.

A batch norm and an activation in front of a convolution are a map that is written once and read by two
kernels, the convolution and its weight gradient. Both can as well compute it on the way from memory; then it
is never stored. Stands behind the fusion of epilogues: what can be an epilogue is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Trait
from cnnc.ops.conv import Conv2d, Conv2dWeightGrad
from cnnc.ops.elementwise import Elementwise
from cnnc.ops.fused import Fused
from cnnc.ops.scalar import is_cheap
from cnnc.ops.strassen import StrassenConv2d, StrassenWeightGrad
from cnnc.ops.winograd import WinogradConv2d, WinogradWeightGrad
from cnnc.passes.rewrite import Rewriter

LEAST_ROWS = 16
"""Of all images: kernels that make rows for all maps share out nothing else among the threads."""


@dataclass(frozen=True)
class FusePrologues:
    """Cheap elementwise nodes, or regions of them, that contractions alone read become the prologues of all
    of these.

    %1 = map(%x, %s, %t) {f="a * b + c"}      %2 = fused(%x, %s, %t, @w) {body=graph @fused(...) -> (%5) {
    %2 = conv2d(%1, @w)                           %4 = map(%0, %1, %2) {f="a * b + c"}
                                       ->         %5 = conv2d(%4, %3)
                                                }}
    """

    name: ClassVar[str] = "fuse_prologues"

    def __call__(self, graph: Graph) -> Graph:
        made = find_prologues(graph)
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            if node.results[0] in made:
                continue
            prologue = next((made[o] for o in node.operands if o in made), None)
            if prologue is None:
                rewriter.copy(node)
                continue
            op, operands = _with_prologue(node, prologue)
            waiting = replace(node, after=tuple(dict.fromkeys((*node.after, *prologue.after))))
            rewriter.copy(waiting, op, tuple(rewriter.new[o] for o in operands))
        return rewriter.finish()


def find_prologues(graph: Graph) -> Mapping[Value, Node]:
    """The nodes that become prologues of all their readers, by what they compute."""
    return {v: graph.producer[v] for v, reason in prologue_refusals(graph).items() if reason is None}


def prologue_refusals(graph: Graph) -> Mapping[Value, str | None]:
    """For each value that feeds a contraction: why its node does not become a prologue; None if it does."""
    feeding = (node for node in graph.nodes if feeds_contraction(graph, node))
    return {node.result: prologue_refusal(graph, node) for node in feeding}


def feeds_contraction(graph: Graph, node: Node) -> bool:
    """Whether an elementwise node, or a region of them with one result, is read by some contraction."""
    if len(node.results) != 1 or not all(isinstance(n.op, Elementwise) for n in body_of(node).nodes):
        return False
    return any(_anchor(graph.nodes[user]).op.has(Trait.CONTRACTION) for user in graph.users[node.result])


def prologue_refusal(graph: Graph, node: Node) -> str | None:
    """Why a node that feeds a contraction does not become a prologue; None if it does."""
    body = body_of(node)
    if not all(isinstance(n.op, Elementwise) and is_cheap(n.op.expr) for n in body.nodes):
        return "it costs more than to read it"
    wholes = [o for n in body.nodes for o in n.operands if o.type.rank > 1]
    if wholes != [body.nodes[0].operands[0], *(n.result for n in body.nodes[:-1])]:
        return "it reads several maps"
    if node.result in graph.results:
        return "it is asked for"
    for reader in (graph.nodes[user] for user in graph.users[node.result]):
        if not _takes(reader, node.result):
            return f"{_anchor(reader).op.name} %{reader.results[0].name} does not make what it reads"
    if any(node.result in other.after for other in graph.nodes):
        return "another node waits for it"
    return None


def _takes(reader: Node, value: Value) -> bool:
    """Whether the kernel of a reader makes `value` itself: as the operand of its anchor that it loads by
    vectors of channels."""
    if isinstance(reader.op, Fused):
        body, anchor = reader.op.body, reader.op.anchor
        inside = body.inputs[reader.operands.index(value)]
        return anchor == body.nodes[0] and body.users[inside] == (0,) and _takes(anchor, inside)
    op, positions = reader.op, [i for i, o in enumerate(reader.operands) if o == value]
    if isinstance(op, WinogradConv2d | StrassenConv2d):
        return positions == [0]
    if isinstance(op, WinogradWeightGrad | StrassenWeightGrad):
        return positions == [1]
    if isinstance(op, Conv2d):
        images, _, height, _ = value.type.shape
        is_pointwise = op.groups == 1 and op.is_pointwise(reader.operands[1].type.shape)
        return positions == [0] and is_pointwise and images * height >= LEAST_ROWS
    if isinstance(op, Conv2dWeightGrad):
        return positions == [1] and op.groups == 1 and op.is_pointwise(op.kernel)
    return False


def _anchor(node: Node) -> Node:
    return node.op.anchor if isinstance(node.op, Fused) else node


def body_of(node: Node) -> Graph:
    """That of a region, or the node alone as one."""
    if isinstance(node.op, Fused):
        return node.op.body
    return Graph("fused", node.operands, nodes=(node,), outputs=node.results)


def _with_prologue(reader: Node, prologue: Node) -> tuple[Fused, tuple[Value, ...]]:
    """The reader's op and operands with what makes one of these."""
    made = prologue.result
    operands = tuple(dict.fromkeys((*prologue.operands, *(o for o in reader.operands if o != made))))
    builder = GraphBuilder("fused")
    known = {operand: builder.input(builder.fresh(), operand.type) for operand in operands}
    (known[made],) = _emit(builder, prologue, known)
    return Fused(builder.build(_emit(builder, reader, known))), operands


def _emit(builder: GraphBuilder, node: Node, known: Mapping[Value, Value]) -> tuple[Value, ...]:
    """Emit the nodes of a node's body; returns its outputs."""
    body = body_of(node)
    local = {own: known[o] for own, o in zip(body.inputs, node.operands, strict=True)}
    for inner in body.nodes:
        values = builder.emit_all(inner.op, *(local[o] for o in inner.operands))
        local.update(zip(inner.results, values, strict=True))
    return tuple(local[o] for o in body.outputs)
