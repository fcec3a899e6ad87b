"""Why a network is computed as it is: the decisions behind `cnnc explain`.

Reads the stages of a compilation: the choice of algorithms as that pass made it, and the report of fusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cnnc.ir.graph import Graph
from cnnc.ir.op import Trait
from cnnc.passes.choose_algorithms import Choice, ChooseAlgorithms
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.passes.fuse_prologues import FusePrologues, body_of, prologue_refusals
from cnnc.passes.recompute_activations import AGAIN
from cnnc.passes.regions import FusionReport, find_regions
from cnnc.pipeline import Compilation


@dataclass(frozen=True)
class Offer:
    """An algorithm that could compute a node, and the cycles of one core the cost model expects."""

    algorithm: str
    cycles: float


@dataclass(frozen=True)
class Decision:
    """How a contraction is computed: the op of the layer graph, the algorithm, and its choice; an op without
    algorithms to choose from has no algorithm and no choice."""

    op: str
    algorithm: str
    choice: Choice | None


@dataclass(frozen=True)
class Explanation:
    """A node that runs as a kernel: what it computes, by which algorithm and why (`reason` is only, forced,
    measured or predicted; empty where there are no algorithms to choose from), what was fused behind it and
    in front of it (`prologue`), and what was not and why."""

    layer: str
    op: str
    shape: tuple[int, ...]
    algorithm: str
    reason: str
    offers: tuple[Offer, ...]
    fused: tuple[str, ...]
    refused: tuple[str, ...]
    prologue: tuple[str, ...] = ()


def explain(compilation: Compilation) -> tuple[Explanation, ...]:
    """One explanation per kernel of the main program that is more than a copy, in order."""
    graph = _stage(compilation, FuseEpilogues.name)
    report = find_regions(graph)
    regions = {region[0]: region for region in report.regions}
    inner = {index for region in report.regions for index in region[1:]}
    known, prologues = decisions(compilation), _Prologues(_stage(compilation, FusePrologues.name))
    explained = (
        _explanation(graph, regions.get(index, (index,)), known[node.results[0].name], report)
        for index, node in enumerate(graph.nodes)
        if index not in inner and not node.op.has(Trait.VIEW)
    )
    return tuple(full for names, each in explained if (full := prologues.complete(names, each)))


class _Prologues:
    """What the fusion of prologues did to a graph, by names of values."""

    def __init__(self, graph: Graph) -> None:
        reasons = prologue_refusals(graph)
        gone = {value for value, reason in reasons.items() if reason is None}
        self._gone = {value.name for value in gone}
        self._refused = {value.name: reason for value, reason in reasons.items() if reason}
        self._before = {
            node.results[0].name: tuple(inner.op.name for inner in body_of(graph.producer[operand]).nodes)
            for node in graph.nodes
            for operand in node.operands
            if operand in gone
        }

    def complete(self, names: Sequence[str], each: Explanation) -> Explanation | None:
        """An explanation with what it says of prologues; None if the node that computes the values of these
        names became one."""
        if not self._gone.isdisjoint(names):
            return None
        before = next((self._before[name] for name in names if name in self._before), ())
        refused = tuple(f"no prologue: {self._refused[name]}" for name in names if name in self._refused)
        return replace(each, prologue=before, refused=each.refused + refused)


def decisions(compilation: Compilation) -> Mapping[str, Decision]:
    """How each value of the graph before fusion is computed: values of a region by its anchor's algorithm."""
    graph = _stage(compilation, FuseEpilogues.name)
    choices = _choices(compilation)
    anchors = {index: region[0] for region in find_regions(graph).regions for index in region}
    found = {}
    for index, node in enumerate(graph.nodes):
        anchor = graph.nodes[anchors.get(index, index)]
        choice = choices.get(anchor.results[0].name.removesuffix(AGAIN))
        op = choice.node.op.name if choice else anchor.op.name
        decision = Decision(op, choice.chosen.algorithm if choice else "", choice)
        found.update({result.name: decision for result in node.results})
    return found


def helpers(compilation: Compilation) -> Mapping[str, tuple[str, ...]]:
    """The values that an algorithm computes on the way to its result, by the result's name: transformed
    weights, partial gradients."""
    given = _stage(compilation, ChooseAlgorithms.name).values
    chosen = next(s.graph for s in compilation.stages if s.name == ChooseAlgorithms.name)
    found: dict[str, tuple[str, ...]] = {}
    waiting: tuple[str, ...] = ()
    for node in chosen.nodes:
        names = tuple(result.name for result in node.results)
        if names[0] in given:  # what was rewritten stands behind what it was rewritten with
            found[names[0]], waiting = waiting, ()
        else:
            waiting += names
    return found


def _choices(compilation: Compilation) -> Mapping[str, Choice]:
    """By the names of the results; none if the pipeline left everything direct."""
    if compilation.algorithms is None:
        return {}
    graph = _stage(compilation, ChooseAlgorithms.name)
    made = ((node.results[0].name, compilation.algorithms.choice(node)) for node in graph.nodes)
    return {name: choice for name, choice in made if choice is not None}


def _stage(compilation: Compilation, name: str) -> Graph:
    """The graph that the pass of that name was given."""
    names = [stage.name for stage in compilation.stages]
    return compilation.stages[names.index(name) - 1].graph


def _explanation(
    graph: Graph, region: tuple[int, ...], decision: Decision, report: FusionReport
) -> tuple[tuple[str, ...], Explanation]:
    """The values of a region, and what is said of it but for prologues."""
    anchor, choice = graph.nodes[region[0]], decision.choice
    values = tuple(v.name for index in region for v in graph.nodes[index].results)
    return values, Explanation(
        anchor.layer,
        decision.op,
        anchor.results[0].type.shape,
        decision.algorithm,
        choice.reason if choice else "",
        tuple(Offer(c.algorithm, c.cycles) for c in choice.candidates) if choice else (),
        tuple(graph.nodes[index].op.name for index in region[1:]),
        tuple(f"{r.consumer}: {r.reason}" for r in report.refusals if r.value in values),
    )
