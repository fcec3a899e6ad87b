"""One network, ours and others: who agrees with us is timed beside us."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from benchmarks.instruction_set import HOST
from benchmarks.pinning import pinned
from benchmarks.progress import Progress
from benchmarks.rivals import COMPILED
from benchmarks.rounds import Contestant, Timing, measure
from benchmarks.time_limit import time_limit

OURS = "cnnc"
Call = Callable[[], object]


@dataclass(frozen=True)
class Settings:
    """The seconds each contestant gets, and those that PyTorch's compiler may take, 0 to leave it out; the
    target that all are held to."""

    seconds: float
    compile_limit: float
    progress: Progress
    target: str = HOST


@dataclass(frozen=True)
class Entrant:
    """`enter` prepares a system, checks what it computes against ours, and gives the call to time and how far
    the results lie apart; it raises where they disagree or the system fails."""

    name: str
    enter: Callable[[], tuple[Call, float]]


@dataclass(frozen=True)
class Comparison:
    """The times of those that took part, ours among them; remarks on this network, and on what is not
    installed."""

    timings: Mapping[str, Timing]
    notes: tuple[str, ...]
    missing: tuple[str, ...] = ()


def contest(
    title: str,
    ours: Call,
    entrants: Iterable[Entrant],
    missing: Iterable[str],
    threads: int,
    settings: Settings,
) -> Comparison:
    """Time ours beside those entrants that agree; of the others the notes say what was wrong."""
    contestants, notes, gaps = [Contestant(OURS, ours)], [], [0.0]
    for entrant in entrants:
        settings.progress.say(f"{title}: {entrant.name} gets ready")
        limited = time_limit(settings.compile_limit) if entrant.name == COMPILED else nullcontext()
        try:
            with limited:
                call, gap = entrant.enter()
        except Exception as error:  # whatever a system that does not work here raises
            notes.append(f"{entrant.name} is left out: {first_line(error)}")
            continue
        contestants.append(Contestant(entrant.name, call))
        gaps.append(gap)
    if len(contestants) > 1:
        notes.append(f"agreement within {max(gaps):.1e}")
    settings.progress.say(f"{title}: timing {', '.join(c.name for c in contestants)}")
    with pinned(threads):
        timings = measure(contestants, settings.seconds)
    return Comparison(
        {c.name: t for c, t in zip(contestants, timings, strict=True)}, tuple(notes), tuple(missing)
    )


def first_line(error: Exception) -> str:
    """What went wrong, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
