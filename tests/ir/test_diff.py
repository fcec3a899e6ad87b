"""The difference of two dumps."""

from __future__ import annotations

from cnnc.ir.diff import diff_texts


def test_equal_texts_have_no_difference() -> None:
    assert diff_texts("a\nb\n", "a\nb\n", "before", "after") == ""


def test_changed_lines_are_shown_under_both_titles() -> None:
    assert (
        diff_texts("a\nb\n", "a\nc", "source", "fold")
        == "--- source\n+++ fold\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    )
