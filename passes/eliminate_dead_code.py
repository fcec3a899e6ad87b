"""EliminateDeadCode: drops the nodes on which neither an output nor an update depends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import networkx as nx

from cnnc.ir.graph import Graph

_END = "end"


@dataclass(frozen=True)
class EliminateDeadCode:
    """Nodes that nothing needs go. Inputs and params stay: they are the graph's interface.

    graph @net(%x: f32[8]) -> (%2) {          graph @net(%x: f32[8]) -> (%2) {
      %1: f32[8] = tanh(%x)              ->     %2: f32[8] = relu(%x)
      %2: f32[8] = relu(%x)                   }
    }
    """

    name: ClassVar[str] = "eliminate_dead_code"

    def __call__(self, graph: Graph) -> Graph:
        # one vertex behind everything needed, so that one search finds what it depends on
        flow = nx.MultiDiGraph(graph.dataflow)
        flow.add_node(_END)
        flow.add_edges_from((graph.position[v], _END) for v in graph.results if v in graph.position)
        live = nx.ancestors(flow, _END)
        return graph.with_nodes(tuple(n for i, n in enumerate(graph.nodes) if i in live))
