"""What a benchmark found, before it is rendered: a table, the figures drawn from it, and remarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Cell = str | float | None


@dataclass(frozen=True)
class Report:
    """`rows` fit `headers`; None is an empty cell. `figures` are what the goals are stated in. `failures`
    counts what could not be measured; the notes say why."""

    case: str
    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failures: int = 0

    def as_data(self) -> dict[str, object]:
        """For JSON, numbers unrounded."""
        return {
            "case": self.case,
            "title": self.title,
            "rows": [dict(zip(self.headers, row, strict=True)) for row in self.rows],
            "figures": dict(self.figures),
            "notes": list(self.notes),
            "failures": self.failures,
        }
