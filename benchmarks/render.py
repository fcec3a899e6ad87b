"""Reports as text: tables of rich on a terminal, plain columns elsewhere, Markdown between markers, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.report import Cell, Report
from cnnc.errors import CnncError
from cnnc.files import reason, write_whole

FIGURES = "figures"
"""What stands between the markers in a document; other tables have names of their own."""
Machine = Mapping[str, str]


def show(report: Report) -> None:
    """To standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        print(plain(report))
        return
    table = Table(title=report.title, title_justify="left", title_style="bold")
    for number, header in enumerate(report.headers):
        table.add_column(header, justify="right" if number else "left")
    for row in report.rows:
        table.add_row(*map(_text, row))
    console.print(table)
    for note in report.notes:
        console.print(f"  {note}", markup=False)


def plain(report: Report) -> str:
    """Columns set by spaces."""
    cells = [report.headers, *(tuple(map(_text, row)) for row in report.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in cells
    ]
    return "\n".join([report.title, *(f"  {each}" for each in (*lines, *report.notes)), ""])


def as_json(reports: Sequence[Report], machine: Machine) -> str:
    """Everything, numbers unrounded."""
    return json.dumps({"machine": dict(machine), "reports": [r.as_data() for r in reports]}, indent=2)


def rewrite_markdown(path: Path, reports: Sequence[Report], machine: Machine, name: str = FIGURES) -> None:
    """Replace what stands between the markers of that name. Raises CnncError where the file or a marker is
    missing."""
    try:
        text = path.read_text()
    except OSError as error:
        raise CnncError(f"cannot read {path}: {reason(error)}") from None
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, *inside = text.split(begin)
    if len(inside) != 1 or inside[0].count(end) != 1:
        raise CnncError(f"{path} lacks the lines {begin} and {end}, between which the figures go")
    tail = inside[0].partition(end)[2]
    write_whole(path, f"{head}{begin}\n\n{markdown(reports, machine)}\n{end}{tail}")


def markdown(reports: Sequence[Report], machine: Machine) -> str:
    """The machine in one line, then a section per report."""
    line = ", ".join(f"{name} {value}" for name, value in machine.items())
    return "\n".join([f"{line}.\n", *map(_section, reports)])


def _section(report: Report) -> str:
    rule = ["---"] + ["---:"] * (len(report.headers) - 1)
    lines = [report.headers, rule, *(tuple(map(_text, row)) for row in report.rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"- {note}\n" for note in report.notes)
    return f"### {report.title}\n\n{table}\n" + (f"\n{notes}" if notes else "")


def _text(cell: Cell) -> str:
    """Numbers with four significant digits."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    return f"{cell:.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
