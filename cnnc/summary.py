"""What a network consists of and what it costs: the facts behind `cnnc summary`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from cnnc.ir.graph import Graph, Node
from cnnc.ir.op import Trait
from cnnc.passes.eliminate_dead_code import EliminateDeadCode
from cnnc.passes.recompute_activations import RecomputeActivations
from cnnc.passes.set_batch import SetBatch
from cnnc.passes.use_batch_statistics import running_statistics
from cnnc.pipeline import Compilation
from cnnc.units import CompiledUnit


@dataclass(frozen=True)
class LayerSummary:
    """A layer: its ops in order, the shape of its result, the parameters it is the first to use, its
    multiply-accumulates, and the bytes of its result (0 for a mere view)."""

    name: str
    ops: tuple[str, ...]
    shape: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class Summary:
    """The layers and the totals. Of a batch, `microbatch` images are computed at a time. `step_macs` counts
    forward and backward, None for inference; `bound_bytes` is the most bytes alive at one time, which no
    arena can be smaller than; `recomputed` activations are computed again for the backward pass, which
    takes `recomputed_macs` of the step's."""

    name: str
    batch: int
    microbatch: int
    train: bool
    target: str
    layers: tuple[LayerSummary, ...]
    step_macs: int | None
    arena_bytes: int
    bound_bytes: int
    param_bytes: int
    workspace_bytes: int
    kernels: int
    recomputed: int
    recomputed_macs: int

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward computation of one batch."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        return sum(layer.activation_bytes for layer in self.layers)


def summarize(compiled: CompiledUnit) -> Summary:
    """What a compiled network consists of and needs."""
    train, plan = compiled.train, compiled.main.plan
    recomputed = recomputed_nodes(compiled.main)
    again = sum(node.macs for node in recomputed)
    return Summary(
        name=compiled.source.name,
        batch=compiled.batch,
        train=train,
        target=compiled.unit.target.name,
        microbatch=compiled.microbatch,
        layers=tuple(_layers(SetBatch(compiled.batch)(compiled.main.stages[0].graph))),
        step_macs=graph_macs(stage_graph(compiled.main, EliminateDeadCode.name)) + again if train else None,
        arena_bytes=plan.arena_bytes,
        bound_bytes=plan.live_bytes_bound,
        param_bytes=plan.param_bytes,
        workspace_bytes=compiled.workspace_bytes,
        kernels=len(compiled.main.program.kernels),
        recomputed=len(recomputed),
        recomputed_macs=again,
    )


def recomputed_nodes(compilation: Compilation) -> tuple[Node, ...]:
    """The nodes that RecomputeActivations added; none where it did not run."""
    graphs = itertools.pairwise(stage.graph for stage in compilation.stages)
    stages = zip(compilation.stages[1:], graphs, strict=True)
    pair = next((pair for stage, pair in stages if stage.name == RecomputeActivations.name), None)
    if pair is None:
        return ()
    before, after = pair
    return tuple(node for node in after.nodes if node.results[0].name not in before.values)


def stage_graph(compilation: Compilation, name: str) -> Graph:
    """The graph as the first pass of that name left it."""
    return next(stage.graph for stage in compilation.stages if stage.name == name)


def graph_macs(graph: Graph) -> int:
    """Multiply-accumulates of one run of a graph."""
    return sum(node.macs for node in graph.nodes)


def _layers(graph: Graph) -> Iterable[LayerSummary]:
    """The graph's nodes by layer, in the order of the layers' first nodes."""
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        groups.setdefault(node.layer or node.results[0].name, []).append(node)
    counted: set[str] = set()
    statistics = running_statistics(graph)
    params = {p.name: p.type.size for p in graph.params if p not in statistics}
    for name, nodes in groups.items():
        used = {o.name for n in nodes for o in n.operands if o.name in params} - counted
        counted |= used
        yield _layer(name, nodes, sum(params[p] for p in used))


def _layer(name: str, nodes: list[Node], parameters: int) -> LayerSummary:
    result = nodes[-1].results[0].type
    moves_nothing = (Trait.VIEW, Trait.JOIN, Trait.PART)
    is_view = all(any(map(node.op.has, moves_nothing)) for node in nodes)
    ops = tuple(node.op.name for node in nodes)
    macs = sum(node.macs for node in nodes)
    return LayerSummary(name, ops, result.shape, parameters, macs, 0 if is_view else result.nbytes)
