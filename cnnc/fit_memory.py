"""Compiles within a limit of memory: plans, chooses what to compute again where most is alive, plans again.

How much is needed is known only when layouts and places are; so the whole way from fusion to the plan is
gone again for every choice, and choices that do not help are taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np

from cnnc.backend.lower import lower
from cnnc.backend.proven import ProvenKernels
from cnnc.backend.target import Target
from cnnc.errors import CnncError
from cnnc.ir.graph import Graph, Value
from cnnc.ir.location import Location
from cnnc.ir.plan import Plan
from cnnc.passes.recompute_activations import RecomputeActivations
from cnnc.passes.runner import Pass, Stage, run_passes
from cnnc.peak import Profile
from cnnc.pipeline import FUSION, Compilation, compile_graph, plan_graph
from cnnc.recomputation import Offer, Situation

DEPTHS = (0, 1, 2, 4, 8)
"""How many contractions may be computed one from the other again, tried in this order."""

ROUNDS = 40
"""How many plans are made at most."""

SMALL = 200
"""A choice that saves so many times less than what is missing is not tried yet."""

NAMED = 5
"""Of the values alive at the peak so many are named where the limit cannot be met."""


@dataclass(frozen=True)
class Limit:
    """Bytes of workspace, arena and scratch; what is compiled, and for whom: for the message if they do not
    suffice."""

    nbytes: int
    what: str
    name: str
    location: Location

    def check(self, compilation: Compilation) -> None:
        """Raise CnncError if the workspace is larger."""
        needed = compilation.program.workspace_bytes
        if needed > self.nbytes:
            reach = f"{self.what} in {self.nbytes:,} bytes of memory is out of reach"
            least = f"the least found is {needed:,}; alive at its peak are {_alive(compilation.plan)}"
            raise CnncError(f"{self.name}: {reach}: {least}", self.location)


def compile_within(
    limit: Limit | None,
    graph: Graph,
    passes: Sequence[Pass],
    target: Target,
    shared: Plan | None = None,
    batch: int = 0,
    proven: ProvenKernels | None = None,
) -> Compilation:
    """As `compile_graph`, but with a workspace of at most `limit`: values of the forward part that the
    backward part needs are computed again where that serves.

    Raises CnncError if that is out of reach, with the least found and the largest values alive at its peak.
    """
    compilation = compile_graph(graph, passes, target, shared, batch, proven)
    if limit is None:
        return compilation
    search = _Search(compilation, target, shared)
    attempt = _Attempt(frozenset(), compilation.stages, compilation.plan)
    while compilation.program.workspace_bytes > limit.nbytes:
        program = compilation.program
        smaller = search.reduce(attempt, limit.nbytes - (program.workspace_bytes - program.plan.arena_bytes))
        if smaller is attempt:
            break
        attempt = smaller
        program = lower(attempt.plan, target, batch, proven)
        compilation = replace(compilation, stages=attempt.stages, plan=attempt.plan, program=program)
    limit.check(compilation)
    return compilation


@dataclass(frozen=True)
class _Attempt:
    """The values chosen to be computed again, and where that leads."""

    chosen: frozenset[str]
    stages: tuple[Stage, ...]
    plan: Plan

    @cached_property
    def profile(self) -> Profile:
        return Profile(self.plan)

    def excess(self, limit: int) -> tuple[int, int]:
        """How far it is from the limit: at the peak, and summed over all nodes, for peaks may be equal."""
        live = self.profile.live_bytes
        return max(int(live.max(initial=0)), limit), int(np.maximum(live - limit, 0).sum())


@dataclass
class _Search:
    """Makes attempts at the compilation of one graph; `rounds` are left."""

    first: Compilation
    target: Target
    shared: Plan | None
    rounds: int = ROUNDS

    def reduce(self, attempt: _Attempt, limit: int) -> _Attempt:
        """The attempt given, or the first better one that needs an arena of at most `limit` bytes; if there
        is none, the best."""
        for depth in DEPTHS:
            refused: set[frozenset[str]] = set()
            while attempt.plan.arena_bytes > limit and self.rounds:
                situation = Situation(self._graph, attempt.chosen, attempt.profile, depth)
                excess = attempt.plan.arena_bytes - limit
                offers = [
                    o for o in situation.offers() if o.values not in refused and o.saved * SMALL >= excess
                ]
                # what the packing leaves unused counts as well
                unused = attempt.plan.arena_bytes - int(attempt.profile.live_bytes.max(initial=0))
                aim = max(limit - unused, 0)
                better = self._better(attempt, aim, _enough(offers, excess), refused)
                if better is None and not offers:
                    break
                attempt = better or attempt
        return attempt

    def _better(
        self, attempt: _Attempt, aim: int, picks: list[Offer], refused: set[frozenset[str]]
    ) -> _Attempt | None:
        """The attempt with so many of the picks that fewer do not help more; None if none helps. A pick that
        does not help alone is refused."""
        best = attempt
        while picks and self.rounds:
            tried = self._attempt(attempt.chosen.union(*(pick.values for pick in picks)))
            is_better = tried.excess(aim) < best.excess(aim)
            if best is not attempt and not is_better:
                return best
            if is_better:
                best = tried
            elif len(picks) == 1:
                refused.add(picks[0].values)
            if best.excess(aim) <= (aim, 0):
                return best
            picks = picks[: len(picks) // 2]
        return None if best is attempt else best

    def _attempt(self, chosen: frozenset[str]) -> _Attempt:
        self.rounds -= 1
        ordered = tuple(name for name in self._graph.values if name in chosen)
        before = self.first.stages[: self._fusion]
        added = run_passes(self._graph, (RecomputeActivations(ordered), *FUSION))[1:]
        return _Attempt(chosen, (*before, *added), plan_graph(added[-1].graph, self.target, self.shared))

    @cached_property
    def _fusion(self) -> int:
        """The number of the first stage that fusion left."""
        return [stage.name for stage in self.first.stages].index(FUSION[0].name)

    @cached_property
    def _graph(self) -> Graph:
        """What fusion is given."""
        return self.first.stages[self._fusion - 1].graph


def _enough(offers: list[Offer], excess: int) -> list[Offer]:
    """The first offers that together save the excess; all if they do not suffice."""
    saved = accumulate((o.saved for o in offers), initial=0)
    return [offer for offer, before in zip(offers, saved, strict=False) if before < excess]


def _alive(plan: Plan) -> str:
    """The largest values alive at the peak: `%3 of bn1, f32[8,64,112,112], 25,690,112 bytes; ...`."""
    profile = Profile(plan)
    held = profile.held(profile.peak) if plan.graph.nodes else ()
    largest = (max(piece.values, key=lambda v: v.type.nbytes) for piece in held[:NAMED])
    return "; ".join(_described(plan, value) for value in largest) or "none"


def _described(plan: Plan, value: Value) -> str:
    layer = plan.graph.producer[value].layer
    return f"%{value.name}{f' of {layer}' if layer else ''}, {value.type}, {value.type.nbytes:,} bytes"
