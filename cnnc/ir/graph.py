"""The layer graph: SSA values, nodes, and a networkx view of the dataflow. Frozen throughout.

Every pass is Graph -> Graph. `inputs` are given per run, `params` are tensors that live between
runs (weights, optimizer state), `updates` say which value each param holds after the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import networkx as nx

from cnnc.ir.location import UNKNOWN, Location
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType


@dataclass(frozen=True)
class Value:
    """One SSA value. Names are unique in a graph; params print as @name, others as %name."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Node:
    """One op applied to operands. `layer` is the user's layer it belongs to, for reports. `after` are values
    that must be there before the node runs, though it does not read them."""

    op: Op
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    layer: str = ""
    loc: Location = UNKNOWN
    after: tuple[Value, ...] = ()

    @property
    def result(self) -> Value:
        """The only result of a single-result node."""
        (value,) = self.results
        return value

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the direct method."""
        return self.op.macs(*(operand.type for operand in self.operands))


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order (a topological order of the dataflow)."""

    name: str
    inputs: tuple[Value, ...] = ()
    params: tuple[Value, ...] = ()
    nodes: tuple[Node, ...] = ()
    outputs: tuple[Value, ...] = ()
    updates: tuple[tuple[Value, Value], ...] = field(default=())

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Every value by name: params, inputs, then results in node order."""
        named = [*self.params, *self.inputs, *(v for n in self.nodes for v in n.results)]
        return {v.name: v for v in named}

    @cached_property
    def producer(self) -> Mapping[Value, Node]:
        """The node that computes a value; params and inputs are absent."""
        return {v: n for n in self.nodes for v in n.results}

    @cached_property
    def position(self) -> Mapping[Value, int]:
        """Index in `nodes` of the node that computes a value."""
        return {v: i for i, n in enumerate(self.nodes) for v in n.results}

    @cached_property
    def users(self) -> Mapping[Value, tuple[int, ...]]:
        """Indices of the nodes that read a value, in order; every value has an entry."""
        found: dict[Value, list[int]] = {v: [] for v in self.values.values()}
        for index, node in enumerate(self.nodes):
            for operand in dict.fromkeys(node.operands):
                found.setdefault(operand, []).append(index)
        return {v: tuple(i) for v, i in found.items()}

    @cached_property
    def dataflow(self) -> nx.MultiDiGraph:
        """Vertices are node indices; an edge carries the value (`value`) from producer to reader, or to the
        node that waits for it."""
        flow = nx.MultiDiGraph()
        flow.add_nodes_from(range(len(self.nodes)))
        for index, node in enumerate(self.nodes):
            for operand in (*node.operands, *node.after):
                if operand in self.position:
                    flow.add_edge(self.position[operand], index, value=operand)
        return nx.freeze(flow)

    @cached_property
    def results(self) -> frozenset[Value]:
        """Values that must exist after the run: the outputs and the updates' new values."""
        return frozenset(self.outputs) | {new for _, new in self.updates}

    @cached_property
    def trained(self) -> tuple[Value, ...]:
        """The params that no update assigns yet: those a loss is differentiated by and an optimizer
        changes. The others, such as counters, have a rule of their own."""
        updated = {param for param, _ in self.updates}
        return tuple(param for param in self.params if param not in updated)

    def is_private(self, value: Value) -> bool:
        """Whether one node reads a value and nobody asks for it."""
        return len(self.users[value]) == 1 and value not in self.results

    def private_producer(self, value: Value) -> Node | None:
        """The node that computes a value, if that is private."""
        return self.producer.get(value) if self.is_private(value) else None

    def with_nodes(self, nodes: tuple[Node, ...]) -> Graph:
        return replace(self, nodes=nodes)
