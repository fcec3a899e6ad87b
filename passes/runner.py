"""Runs passes over a graph, with verification, the clock and a record between any two of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cnnc.errors import VerifyError
from cnnc.ir.graph import Graph
from cnnc.ir.verify import verify_graph

SOURCE_STAGE = "source"
"""Name of the first stage: the graph as it was given."""


class Pass(Protocol):
    """A pure function from graph to graph that has a name; a frozen dataclass if it has options."""

    @property
    def name(self) -> str: ...

    def __call__(self, graph: Graph, /) -> Graph: ...


@dataclass(frozen=True)
class Stage:
    """The graph as the pass `name` left it, and the seconds the pass took."""

    name: str
    graph: Graph
    seconds: float


def run_passes(graph: Graph, passes: Iterable[Pass]) -> tuple[Stage, ...]:
    """Run `passes` in order; the stages begin with the graph given, and the last holds the result.

    Raises VerifyError for a graph that breaks a rule; after a pass, the pass is named.
    """
    verify_graph(graph)
    stages = [Stage(SOURCE_STAGE, graph, 0.0)]
    for each in passes:
        start = time.perf_counter()
        graph = each(graph)
        stages.append(Stage(each.name, graph, time.perf_counter() - start))
        try:
            verify_graph(graph)
        except VerifyError as error:
            raise VerifyError(f"after the pass {each.name}: {error.message}", error.location) from None
    return tuple(stages)
