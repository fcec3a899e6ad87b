"""Reports as documents: the part between two markers is rewritten, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.render import rewrite_markdown
from benchmarks.report import Report
from cnnc.errors import CnncError

REPORT = Report("case", "Title", ("network", "ms"), (("LeNet-5", 1.23456),))
PAGE = (
    "before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\n<!-- other: begin --><!-- other: end -->\n"
)


def test_one_part_of_a_page_is_rewritten(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    rewrite_markdown(page, [REPORT], {"CPU": "one"})
    rewrite_markdown(page, [REPORT], {"CPU": "two"}, "other")
    first, second = page.read_text().split("<!-- figures: end -->")
    assert first.startswith("before\n<!-- figures: begin -->\n\nCPU one.\n")
    assert "| LeNet-5 | 1.235 |" in first and "old" not in first
    assert "CPU two." in second and second.endswith("<!-- other: end -->\n")


def test_a_page_without_the_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    with pytest.raises(CnncError, match="lacks the lines <!-- third: begin --> and <!-- third: end -->"):
        rewrite_markdown(page, [REPORT], {}, "third")
    assert page.read_text() == PAGE
