"""Golden texts: tests/golden/<pass>/<case>.before.txt and .after.txt.

A new case is a new .before.txt; `pytest --refresh-goldens` writes what comes after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnc.ir.diff import diff_texts
from cnnc.ir.graph import Graph
from cnnc.ir.parser import parse_graph
from cnnc.ir.printer import print_graph
from cnnc.ir.verify import verify_graph
from cnnc.ops import OPS
from cnnc.passes.runner import Pass, run_passes

ROOT = Path(__file__).parent / "golden"


def cases(folder: str) -> list[str]:
    """Names of the cases in a folder of tests/golden, to parametrize a test with."""
    names = sorted(path.name.removesuffix(".before.txt") for path in (ROOT / folder).glob("*.before.txt"))
    assert names, f"no .before.txt in {ROOT / folder}"
    return names


def before(folder: str, case: str) -> Graph:
    """The verified graph a case starts from."""
    path = ROOT / folder / f"{case}.before.txt"
    graph = parse_graph(path.read_text(encoding="utf-8"), OPS, str(path))
    verify_graph(graph)
    return graph


@dataclass(frozen=True)
class Goldens:
    """Compares with the texts on disk; with `refresh`, writes them."""

    refresh: bool

    def check_pass(self, each: Pass, case: str) -> None:
        """The graph that `each` makes of `<case>.before.txt` is verified and prints as `<case>.after.txt`."""
        stages = run_passes(before(each.name, case), [each])
        self.check_text(f"{each.name}/{case}.after.txt", print_graph(stages[-1].graph))

    def check_text(self, path: str, text: str) -> None:
        """`text` is that of the file at `path`, relative to tests/golden."""
        file = ROOT / path
        if self.refresh:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"{file} is missing: run pytest --refresh-goldens and review what it wrote"
        difference = diff_texts(file.read_text(encoding="utf-8"), text, path, "now")
        assert not difference, f"\n{difference}if this is right, run pytest --refresh-goldens"
