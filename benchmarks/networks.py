"""The networks of the zoo beside other systems: a table for inference or training on so many threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from benchmarks.contest import OURS, Comparison, Settings, first_line
from benchmarks.image import images_compared
from benchmarks.report import Cell, Report
from benchmarks.rivals import IMAGE_SYSTEMS, STEP_SYSTEMS
from benchmarks.rounds import Timing
from benchmarks.step import steps_compared
from benchmarks.zoo import Entry

RATIOS = ("ratio", "ratio of medians")
"""The time of the fastest other system by ours, of the best calls and of the median ones."""

Task = tuple[Entry, int]
"""A network and its batch."""
Compare = Callable[[Entry, int, int, Settings], Comparison]
"""From a network, its batch and the number of threads."""


def inference(entries: Sequence[Entry], threads: int, settings: Settings) -> Report:
    """Every batch with which the networks' inference is timed."""
    tasks = [(entry, batch) for entry in entries for batch in entry.image_batches]
    return _report("inference", tasks, IMAGE_SYSTEMS, images_compared, threads, settings)


def training(entries: Sequence[Entry], threads: int, settings: Settings) -> Report:
    """A step of the networks whose training is timed."""
    tasks = [(entry, entry.step_batch) for entry in entries if entry.step_batch is not None]
    return _report("training", tasks, STEP_SYSTEMS, steps_compared, threads, settings)


def _report(
    case: str,
    tasks: Sequence[Task],
    systems: tuple[str, ...],
    compare: Compare,
    threads: int,
    settings: Settings,
) -> Report:
    """A network that fails is left out with a note, and counts as a failure."""
    done: dict[Task, Comparison] = {}
    failures: list[str] = []
    for entry, batch in tasks:
        try:
            done[entry, batch] = compare(entry, batch, threads, settings)
        except Exception as error:  # one network's failure must not lose the figures of the others
            failures.append(f"{_shown(entry, batch)} is left out: {first_line(error)}")
    missing = dict.fromkeys(note for found in done.values() for note in found.missing)
    notes = [f"{_shown(*task)}: {note}" for task, found in done.items() for note in found.notes]
    figures: dict[str, float] = {}
    for (entry, batch), found in done.items():
        figures |= _figures(f"{entry.name}/{batch}", found.timings)
    figures |= _means(figures)
    rows = [_row(*task, found.timings, systems) for task, found in done.items()]
    rows.append(("geometric mean", *[None] * (3 + len(systems)), *(figures.get(kind) for kind in RATIOS)))
    return Report(
        case=f"{case}-{threads}",
        title=f"{case.capitalize()}, {threads} thread{'s' * (threads > 1)}: best times in ms",
        headers=("network", "batch", OURS, f"{OURS}, median", *systems, *RATIOS),
        rows=tuple(rows),
        figures=figures,
        notes=(*missing, *failures, *notes),
        failures=len(failures),
    )


def _shown(entry: Entry, batch: int) -> str:
    return f"{entry.title}, batch {batch}"


def _row(entry: Entry, batch: int, timings: Mapping[str, Timing], systems: Sequence[str]) -> tuple[Cell, ...]:
    ours = timings[OURS]
    others = [timings[name].best_ms if name in timings else None for name in systems]
    ratios = _ratios(timings)
    return entry.title, batch, ours.best_ms, ours.median_ms, *others, *(ratios.get(kind) for kind in RATIOS)


def _ratios(timings: Mapping[str, Timing]) -> dict[str, float]:
    """By kind; none where no other system took part."""
    ours, others = timings[OURS], [timing for name, timing in timings.items() if name != OURS]
    if not others:
        return {}
    bests = min(t.best_ms for t in others) / ours.best_ms
    return dict(zip(RATIOS, (bests, min(t.median_ms for t in others) / ours.median_ms), strict=True))


def _figures(key: str, timings: Mapping[str, Timing]) -> dict[str, float]:
    """Of one network: every time, and the ratios."""
    figures = {f"{key}/{kind}": ratio for kind, ratio in _ratios(timings).items()}
    for name, timing in timings.items():
        figures |= {f"{key}/{name}/best ms": timing.best_ms, f"{key}/{name}/median ms": timing.median_ms}
    return figures


def _means(figures: Mapping[str, float]) -> dict[str, float]:
    """The geometric mean of all networks' ratios, by kind."""
    found = {kind: [f for name, f in figures.items() if name.endswith(f"/{kind}")] for kind in RATIOS}
    return {kind: math.exp(sum(map(math.log, each)) / len(each)) for kind, each in found.items() if each}
