"""NormalizePooled: in training a batch normalization and its activation move behind a max pool.

Both are monotone in each channel, so they change places with a maximum: what they work on, forward and
backward, is then the pool's result, a quarter of the pixels for windows that step by two. Stands before
autodiff, behind the pass that makes statistics those of the batch: these are still the whole image's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Trait
from cnnc.ops.concat import Concat
from cnnc.ops.elementwise import Bias, Map, Relu, Relu6, Sigmoid, Tanh
from cnnc.ops.norm import BatchNorm, BatchNormTrain, BatchStatistics
from cnnc.ops.pool import MaxPool2d
from cnnc.passes.rewrite import Rewriter

_SIGN = Map("select(a < 0.0, -1.0, 1.0)")

_PRODUCT = Map("a * b")

_MONOTONE = Relu, Relu6, Sigmoid, Tanh


@dataclass(frozen=True)
class NormalizePooled:
    """Max pools that shrink what is normalized and activated pool what comes out of the contraction.

    %1 = conv2d(%x, @k)                      %s = map(@w) {f="select(a < 0.0, -1.0, 1.0)"}
    %2 = batch_norm_train(%1, @w, @b)        %1 = conv2d(%x, @k)
    %3 = relu(%2)                            %t = map(%1, %s) {f="a * b"}
    %4 = max_pool2d(%3)                      %m, %v = batch_statistics(%t)
                                        ->   %p = max_pool2d(%t)
                                             %r = map(@w, %s) {f="a * b"}
                                             %n = batch_norm(%p, %r, @b, %m, %v)
                                             %4 = relu(%n)

    A channel whose weight is negative changes its sign first, which its convolution does on the way, so that
    normalizing never turns the order round; the running mean, of %1, gets its sign back. Values that are
    joined in front of the pool are pooled one by one and joined behind it. Not where something else reads
    what is normalized or activated.
    """

    name: ClassVar[str] = "normalize_pooled"

    def __call__(self, graph: Graph) -> Graph:
        pools = {node.result: found for node in graph.nodes if (found := _branches(graph, node))}
        branches = [branch for found in pools.values() for branch in found]
        norms = {branch.norm.result for branch in branches}
        idle = {v for pool in pools for v in graph.producer[pool].operands}
        idle |= {branch.activation.result for branch in branches}
        walk = _Walk(Rewriter(graph), {})
        walk.rewriter.declare()
        for node in graph.nodes:
            if node.results[0] in pools:
                walk.pool(node, pools[node.result])
            elif node.results[0] in norms:
                walk.sign(node)
            elif isinstance(node.op, BatchStatistics) and node.operands[0] in walk.signed:
                walk.unsign_mean(node)
            elif idle.isdisjoint(node.results):
                walk.rewriter.copy(node)
        return walk.rewriter.finish()


@dataclass(frozen=True)
class _Branch:
    """A normalization and the activation that alone reads it."""

    norm: Node
    activation: Node


def _branches(graph: Graph, pool: Node) -> tuple[_Branch, ...]:
    """What a pool waits for, if all of it can be pooled first; else nothing."""
    if not isinstance(pool.op, MaxPool2d) or pool.result.type.size >= pool.operands[0].type.size:
        return ()
    (pooled,) = pool.operands
    join = graph.private_producer(pooled)
    parts = join.operands if join is not None and join.op == Concat(axis=1) else (pooled,)
    branches = tuple(found for part in parts if (found := _branch(graph, part)))
    return branches if len(branches) == len(parts) else ()


def _branch(graph: Graph, value: Value) -> _Branch | None:
    """The normalization and the activation that a value comes from, if nothing else reads what they do."""
    activation = graph.private_producer(value)
    if activation is None or not isinstance(activation.op, _MONOTONE):
        return None
    norm = graph.private_producer(activation.operands[0])
    if norm is None or not isinstance(norm.op, BatchNormTrain):
        return None
    source = norm.operands[0]
    producer = graph.producer.get(source)
    others = [graph.nodes[i].op for i in graph.users[source] if graph.nodes[i] is not norm]
    if producer is None or source in graph.results or any(op != BatchStatistics() for op in others):
        return None
    takes_sign = producer.op.has(Trait.CONTRACTION) or isinstance(producer.op, Bias)
    return _Branch(norm, activation) if takes_sign else None


@dataclass(frozen=True)
class _Signed:
    """A contraction's result with the signs of its normalization's weights: values of the new graph."""

    value: Value
    sign: Value
    mean: Value
    variance: Value


@dataclass(frozen=True)
class _Walk:
    """One walk over the old graph; `signed` is what became of its normalized values so far."""

    rewriter: Rewriter
    signed: dict[Value, _Signed]

    def sign(self, norm: Node) -> None:
        """Give what `norm` normalizes the signs of its weights, and take the statistics of that."""
        source, weight, _ = norm.operands
        name, emit = norm.result.name, self.rewriter.emit
        sign = emit(norm, _SIGN, self.rewriter.new[weight], stem=f"{name}.sign")
        value = emit(norm, _PRODUCT, self.rewriter.new[source], sign, stem=f"{name}.signed")
        stems = (f"{name}.mean", f"{name}.variance")
        statistics = self.rewriter.emit_all(norm, BatchStatistics(), value, stems=stems)
        self.signed[source] = _Signed(value, sign, *statistics)

    def unsign_mean(self, statistics: Node) -> None:
        """Statistics that follow the batch are those of the value without the signs."""
        signed = self.signed[statistics.operands[0]]
        mean, variance = statistics.results
        stem = mean.name
        self.rewriter.new[mean] = self.rewriter.emit(
            statistics, _PRODUCT, signed.mean, signed.sign, stem=stem
        )
        self.rewriter.new[variance] = signed.variance

    def pool(self, pool: Node, branches: tuple[_Branch, ...]) -> None:
        """Pool, normalize and activate each branch; the last node takes over the pool's name."""
        if len(branches) == 1:
            self._activate(pool, branches[0], pool.results)
            return
        parts = tuple(self._activate(pool, branch, branch.activation.results) for branch in branches)
        self.rewriter.copy(replace(pool, op=Concat(axis=1)), operands=parts)

    def _activate(self, pool: Node, branch: _Branch, results: tuple[Value, ...]) -> Value:
        norm, activation = branch.norm, branch.activation
        assert isinstance(norm.op, BatchNormTrain)
        signed, (_, weight, bias) = self.signed[norm.operands[0]], norm.operands
        name, emit = norm.result.name, self.rewriter.emit
        pooled = emit(pool, pool.op, signed.value, stem=f"{name}.pooled")
        size = emit(norm, _PRODUCT, self.rewriter.new[weight], signed.sign, stem=f"{name}.weight")
        channels = size, self.rewriter.new[bias], signed.mean, signed.variance
        normalized = emit(norm, BatchNorm(norm.op.eps), pooled, *channels, stem=name)
        self.rewriter.copy(replace(activation, results=results), operands=(normalized,))
        return self.rewriter.new[results[0]]
