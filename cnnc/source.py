"""What is compiled: a Network of the DSL or a text graph, seen alike by the rest of the front door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnc.errors import CnncError, UnsupportedError
from cnnc.frontend.initializers import he, initial_value
from cnnc.frontend.inputs import InputSpec
from cnnc.frontend.network import Network
from cnnc.frontend.weights import load_weights, match_weights, rename_weights, same_name
from cnnc.ir.graph import Graph
from cnnc.ir.location import UNKNOWN, Location
from cnnc.ir.types import Array
from cnnc.ops.optimizer import Optimizer

Weights = Mapping[str, Array] | str | Path | None
"""Weights by name, a file of them, or None for the network's own first weights."""


@dataclass(frozen=True)
class Source:
    """Graphs at batch 1, how inputs are read, and what training needs (None for a text graph)."""

    name: str
    graph: Graph
    inputs: tuple[InputSpec, ...]
    network: Network | None = None

    @property
    def location(self) -> Location:
        """Where the network was declared; unknown of a text graph."""
        return self.network.location if self.network else UNKNOWN

    @property
    def classes(self) -> int | None:
        return self.network.classes if self.network else None

    @property
    def optimizer(self) -> Optimizer:
        """The network's optimizer. Raises CnncError for a text graph."""
        return self._trainable().optimizer

    def loss_graph(self) -> Graph:
        """The graph with its loss. Raises CnncError for a text graph or a network without a loss."""
        return self._trainable().loss_graph()

    def initial_weights(self, seed: int | None = None) -> Mapping[str, Array]:
        """First weights: the network's own, He's for a text graph."""
        if self.network is not None:
            return self.network.initial_weights(seed)
        return {p.name: initial_value(p.name, p.type.shape, he, seed or 0) for p in self.graph.params}

    def weights(self, given: Weights) -> Mapping[str, Array]:
        """The given weights, checked against the graph's params: float32 arrays of their shapes."""
        if given is None:
            return self.initial_weights()
        origin = given if isinstance(given, str | Path) else "weights"
        arrays = load_weights(given) if isinstance(given, str | Path) else given
        own_name = self.network.weight_name if self.network is not None else same_name
        return match_weights(self.graph.params, rename_weights(arrays, own_name, origin), origin)

    @property
    def has_loss(self) -> bool:
        """Whether it can be trained."""
        return self.network is not None and self.network.has_loss

    def check_runnable(self) -> None:
        """Raise UnsupportedError for a graph that does not go from float32 images to float32 results."""
        for value in (*self.graph.inputs, *self.graph.outputs):
            if value.type.dtype != "f32" or value.type.rank == 0:
                raise UnsupportedError(
                    f"{self.name}: {value.name} is {value.type}; graphs run here have float32 inputs and "
                    "outputs with a batch axis"
                )

    def _trainable(self) -> Network:
        if self.network is None:
            raise CnncError(f"{self.name} is a text graph, which has no loss; training needs a Network")
        return self.network


def source_of(net: Network | Graph) -> Source:
    """The source of a network or graph; a graph's inputs are read without scaling."""
    if isinstance(net, Network):
        return Source(net.name, net.graph(), net.inputs, net)
    specs = tuple(InputSpec(v.name, v.type.shape[1:]) for v in net.inputs)
    return Source(net.name, net, specs)
