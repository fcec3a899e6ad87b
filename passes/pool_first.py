"""PoolFirst: a mean pool moves in front of a pointwise convolution, which then has fewer pixels to compute.

Pooling acts on every channel alone and a convolution of one tap on every pixel alone, and both are linear:
they can change places. Stands before autodiff, so that gradients are computed for few pixels as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from cnnc.ir.graph import Graph, Node
from cnnc.ops.conv import Conv2d
from cnnc.ops.elementwise import Bias
from cnnc.ops.pool import MeanPool2d
from cnnc.passes.rewrite import Rewriter


@dataclass(frozen=True)
class PoolFirst:
    """Mean pools that shrink the result of a 1x1 convolution, with a bias or without, pool its input.

        %1: f32[1,8,6,6] = conv2d(%x, @w)          %2.pooled: f32[1,4,3,3] = mean_pool2d(%x)
        %2: f32[1,8,3,3] = mean_pool2d(%1)    ->   %2: f32[1,8,3,3] = conv2d(%2.pooled, @w)

    Not where something else reads what lies between, nor, with a bias, where windows reach into padding.
    """

    name: ClassVar[str] = "pool_first"

    def __call__(self, graph: Graph) -> Graph:
        chains = {chain[-1].result: chain for chain in _chains(graph)}
        moved = {node.result for *before, _ in chains.values() for node in before}
        rewriter = Rewriter(graph)
        rewriter.declare()
        for node in graph.nodes:
            if node.results[0] in chains:
                _swap(rewriter, chains[node.result])
            elif moved.isdisjoint(node.results):
                rewriter.copy(node)
        return rewriter.finish()


def _chains(graph: Graph) -> Iterator[tuple[Node, ...]]:
    """A convolution, a bias if there is one, and a pool that nothing hinders from coming first."""
    for pool in graph.nodes:
        if not isinstance(pool.op, MeanPool2d) or pool.result.type.size >= pool.operands[0].type.size:
            continue
        between = graph.private_producer(pool.operands[0])
        chain = [pool]
        if between and isinstance(between.op, Bias) and not any(pool.op.pad):
            chain.insert(0, between)
            between = graph.private_producer(between.operands[0])
        if between is None or not isinstance(between.op, Conv2d):
            continue
        if between.op.is_pointwise(between.operands[1].type.shape):
            yield (between, *chain)


def _swap(rewriter: Rewriter, chain: tuple[Node, ...]) -> None:
    """Emit the pool, then the others; the last takes over the pool's name, each keeps its layer."""
    convolution, *between, pool = chain
    source, weights = (rewriter.new[o] for o in convolution.operands)
    pooled = rewriter.emit(pool, pool.op, source, stem=f"{pool.result.name}.pooled")
    if between:
        (bias,) = between
        pooled = rewriter.emit(convolution, convolution.op, pooled, weights, stem=convolution.result.name)
        rewriter.copy(replace(bias, results=pool.results), operands=(pooled, rewriter.new[bias.operands[1]]))
        return
    rewriter.copy(replace(convolution, results=pool.results), operands=(pooled, weights))
