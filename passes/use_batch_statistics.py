"""Lets normalization in training use the statistics of the batch, and the running ones follow.

Stands before differentiation: gradients flow through the batch's statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cnnc.errors import UnsupportedError
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ops.batch_sums import row_count
from cnnc.ops.elementwise import Map
from cnnc.ops.norm import BatchNorm, BatchNormTrain, BatchStatistics
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class UseBatchStatistics:
    """Each normalization is by the batch's statistics; the running ones, its params, are updated.

    %1 = batch_norm(%x, @w, @b, @m, @v)      %1 = batch_norm_train(%x, @w, @b)
                                             %2, %3 = batch_statistics(%x)
                                        ->   %4 = map(@m, %2) {f="0.9 * a + 0.1 * b"}
                                             %5 = map(@v, %3) {f="0.9 * a + 0.1 * n / (n - 1) * b"}
                                             update @m = %4
                                             update @v = %5

    With n values in each channel, the running variance is that of an unbiased estimate. Raises
    UnsupportedError where the running statistics are no params or those of another normalization too,
    ShapeError where a channel has one value only.
    """

    name: ClassVar[str] = "use_batch_statistics"

    def __call__(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            if isinstance(node.op, BatchNorm):
                _check_running(graph, node)
                _use_statistics(rewriter, node, node.op)
            else:
                rewriter.copy(node)
        return rewriter.finish()


def running_statistics(graph: Graph) -> frozenset[Value]:
    """The params that are means and variances of normalizations: kept with the weights, but not trained."""
    read = {v for node in graph.nodes if isinstance(node.op, BatchNorm) for v in node.operands[3:]}
    return frozenset(read.intersection(graph.params))


def _check_running(graph: Graph, node: Node) -> None:
    for value in node.operands[3:]:
        if value not in graph.params or len(graph.users[value]) > 1 or value in dict(graph.updates):
            reason = "must be a param of one normalization alone to follow the batches"
            raise UnsupportedError(f"{node.op.name}: the running statistic {value.name!r} {reason}", node.loc)


def _use_statistics(rewriter: Rewriter, node: Node, op: BatchNorm) -> None:
    x, weight, bias, *running = (rewriter.new[o] for o in node.operands)
    rewriter.copy(node, BatchNormTrain(op.eps), (x, weight, bias))
    stem = node.result.name
    batch = rewriter.emit_all(node, BatchStatistics(), x, stems=(f"{stem}.mean", f"{stem}.variance"))
    count = row_count(x.type)
    for value, new, factor in zip(running, batch, (1.0, count / (count - 1)), strict=True):
        step = Map(f"{1.0 - op.momentum!r} * a + {op.momentum * factor!r} * b")
        rewriter.update(value, rewriter.emit(node, step, value, new, stem=f"{value.name}.next"))
