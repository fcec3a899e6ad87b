"""The golden helper itself: what differs fails, and a refresh is refused on CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import goldens
from tests.goldens import Goldens

REPOSITORY = Path(__file__).parent.parent


def test_a_difference_fails_and_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goldens, "ROOT", tmp_path)
    with pytest.raises(AssertionError, match="is missing: run pytest --refresh-goldens"):
        Goldens(refresh=False).check_text("a/b.txt", "one\n")
    Goldens(refresh=True).check_text("a/b.txt", "one\n")
    Goldens(refresh=False).check_text("a/b.txt", "one\n")
    with pytest.raises(AssertionError, match=r"-one\n\+two\n"):
        Goldens(refresh=False).check_text("a/b.txt", "two\n")


def test_refreshing_is_refused_on_ci() -> None:
    command = [sys.executable, "-m", "pytest", "--refresh-goldens", "--collect-only", "tests/test_goldens.py"]
    environment = {**os.environ, "CI": "true"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--refresh-goldens is refused when CI is set" in done.stderr
