"""The difference between two texts of the IR: what `dump --diff` shows for a pass."""

from __future__ import annotations

import difflib


def diff_texts(before: str, after: str, title_before: str, title_after: str) -> str:
    """A unified diff with a newline at the end of every line; empty if the texts agree."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), title_before, title_after, lineterm=""
    )
    return "".join(f"{line}\n" for line in lines)
