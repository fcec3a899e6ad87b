"""What a benchmark found, before it is rendered: a table, the figures drawn from it, and remarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.rounds import Contestant, Timing

Cell = str | float | None


@dataclass(frozen=True)
class Report:
    """`rows` fit `headers`; None is an empty cell. `figures` are what the goals are stated in."""

    case: str
    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_data(self) -> dict[str, object]:
        """For JSON, numbers unrounded."""
        return {
            "case": self.case,
            "title": self.title,
            "rows": [dict(zip(self.headers, row, strict=True)) for row in self.rows],
            "figures": dict(self.figures),
            "notes": list(self.notes),
        }


def comparison(
    case: str, title: str, contestants: Sequence[Contestant], timings: Sequence[Timing], notes: Sequence[str]
) -> Report:
    """Ours, which comes first, beside others. Each ratio is another's time by ours, best by best and
    median by median; the figures are those of the fastest other."""
    ours, others = timings[0], timings[1:]
    rows = tuple(
        (c.name, t.best_ms, t.median_ms, t.best_ms / ours.best_ms, t.median_ms / ours.median_ms)
        for c, t in zip(contestants, timings, strict=True)
    )
    figures = {"best_ms": ours.best_ms, "median_ms": ours.median_ms}
    if others:
        figures["ratio"] = min(t.best_ms for t in others) / ours.best_ms
        figures["ratio_of_medians"] = min(t.median_ms for t in others) / ours.median_ms
    headers = ("system", "best ms", "median ms", "best / ours", "median / ours")
    return Report(case, title, headers, rows, figures, tuple(notes))
