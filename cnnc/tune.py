"""Measures which algorithm is the fastest for each contraction of a network: the work behind `cnnc tune`.

The network is compiled with each algorithm forced wherever it applies, and every kernel is timed where it
runs; what an algorithm computes besides its main kernel counts for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cnnc.backend.algorithms.book import ALGORITHMS
from cnnc.backend.target import Target
from cnnc.executable import Request
from cnnc.explain import decisions, helpers
from cnnc.layer_times import node_times
from cnnc.passes.choose_algorithms import Choice, Preferences, choice_key
from cnnc.source import Source
from cnnc.units import CompiledUnit


@dataclass(frozen=True)
class Tuned:
    """A contraction with a choice: its key in a tuning file, where it first occurs, and the seconds that each
    algorithm took."""

    key: str
    layer: str
    op: str
    seconds: Mapping[str, float]

    @property
    def fastest(self) -> str:
        return min(self.seconds, key=lambda name: self.seconds[name])


def tune(
    source: Source,
    batch: int,
    train: bool,
    target: Target,
    threads: int,
    seconds: float,
    on_algorithm: Callable[[str], None],
) -> tuple[Tuned, ...]:
    """Measure each algorithm for about `seconds`; `on_algorithm` hears of each before."""
    found: dict[str, Tuned] = {}
    for algorithm in ALGORITHMS:
        forced = Preferences(forced=algorithm.name)
        compiled = Request(source, batch, train, target, forced, strict=False).compiled()
        if not _uses(compiled, algorithm.name):
            continue
        on_algorithm(algorithm.name)
        for key, choice, taken in _measured(compiled, threads, seconds):
            known = found.get(key) or Tuned(key, choice.node.layer, choice.node.op.name, {})
            name, times = choice.chosen.algorithm, dict(known.seconds)
            times[name] = min(taken, times.get(name, taken))
            found[key] = Tuned(key, known.layer, known.op, times)
    return tuple(found.values())


def _uses(compiled: CompiledUnit, algorithm: str) -> bool:
    """Whether the algorithm is chosen anywhere."""
    return any(d.algorithm == algorithm for d in decisions(compiled.main).values())


def _measured(compiled: CompiledUnit, threads: int, seconds: float) -> list[tuple[str, Choice, float]]:
    """Key, choice and seconds of every contraction that has a choice."""
    known, besides = decisions(compiled.main), helpers(compiled.main)
    timed = node_times(compiled, threads, seconds)
    best = {node.results[0].name: float(times.min()) for node, times in timed}
    measured = []
    for name, taken in best.items():
        decision = known.get(name)
        if decision is None or decision.choice is None or len(decision.choice.candidates) < 2:
            continue
        choice = decision.choice
        helping = sum(best.get(helper, 0.0) for helper in besides[choice.node.result.name])
        key = choice_key(choice.node.op, tuple(o.type for o in choice.node.operands))
        measured.append((key, choice, taken + helping))
    return measured
