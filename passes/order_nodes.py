"""Second step of the buffer plan: orders in which the nodes may run, of which the better one is taken.

Every topological order gives the same results; which one needs the least memory is NP-hard to say
(Sethi, "Complete register allocation problems"). What matters most in training is that a weight is
updated as soon as its gradient is there, so that the gradients are not all alive at the end.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import replace

import networkx as nx

from cnnc.ir.graph import Value
from cnnc.passes.settle_results import Settled


def node_orders(settled: Settled) -> tuple[Settled, ...]:
    """The graph with its nodes as they stand, as far as the flow allows, and the graph with each
    node that frees as much arena as it takes moved ahead to where its operands are there."""
    given = list(nx.lexicographical_topological_sort(settled.flow))
    return tuple(_reordered(settled, order) for order in (given, _thrifty(settled)))


def _reordered(settled: Settled, order: list[int]) -> Settled:
    graph = settled.graph.with_nodes(tuple(settled.graph.nodes[i] for i in order))
    flow = nx.relabel_nodes(settled.flow, {old: new for new, old in enumerate(order)})
    return replace(settled, graph=graph, flow=flow)


def _thrifty(settled: Settled) -> list[int]:
    """List scheduling: of the nodes that could run next the first one that does not take more than
    it frees, or if there is none, the first one."""
    memory = _Memory(settled)
    waits_for = dict(settled.flow.in_degree())
    ready = [i for i, count in waits_for.items() if count == 0]
    order: list[int] = []
    while ready:
        chosen = next((i for i in ready if memory.growth(i) <= 0), ready[0])
        ready.remove(chosen)
        order.append(chosen)
        memory.run(chosen)
        for reader in settled.flow.successors(chosen):
            waits_for[reader] -= 1
            if waits_for[reader] == 0:
                insort(ready, reader)
    return order


class _Memory:
    """Which nodes have still to read each value of the arena. Views count as their root, parts as the
    whole they lie in, which takes memory from the first part that is `begun`."""

    def __init__(self, settled: Settled) -> None:
        self.settled = settled
        self.graph = settled.graph
        self.begun: set[Value] = set()
        self.readers: dict[Value, set[int]] = {}
        self.writers: dict[Value, set[int]] = {}
        self.known: dict[int, int] = {}
        for index, node in enumerate(self.graph.nodes):
            for value in node.results:
                self.readers.setdefault(self._root(value), set()).update(self.graph.users[value])
                self.writers.setdefault(self._root(value), set()).add(index)

    def growth(self, index: int) -> int:
        """Bytes of arena that are live after the node has run, less those before."""
        if index not in self.known:
            self.known[index] = self._growth(index)
        return self.known[index]

    def _growth(self, index: int) -> int:
        node = self.graph.nodes[index]
        roots = {self._root(o) for o in node.operands}
        freed = [root for root in roots if self.readers.get(root) == {index}]
        taken = {self._root(r) for r in node.results} - self.begun
        return sum(map(self._nbytes, taken)) - sum(map(self._nbytes, freed))

    def run(self, index: int) -> None:
        """Note that the node has read its operands and written its results: what its neighbours would take
        or free may be another amount now."""
        written = {self._root(result) for result in self.graph.nodes[index].results}
        self.begun |= written
        for root in map(self._root, self.graph.nodes[index].operands):
            readers = self.readers.get(root, set())
            readers.discard(index)
            self._forget(readers)
        for root in written:
            self._forget(self.writers[root])

    def _forget(self, nodes: Iterable[int]) -> None:
        for node in nodes:
            self.known.pop(node, None)

    def _root(self, value: Value) -> Value:
        value = self.settled.views.get(value, value)
        part = self.settled.partition.parts.get(value)
        return part.whole if part else value

    def _nbytes(self, value: Value) -> int:
        """Bytes of arena that a value takes of its own; those of results of the graph stay taken."""
        elsewhere = value in self.settled.written or value in self.graph.outputs
        return 0 if elsewhere else self.settled.layouts[value.name].nbytes(value.type)
