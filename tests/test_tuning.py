"""Tuning files: written, added to, read for one target; damage is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnc.backend.target import TARGETS
from cnnc.errors import CnncError, FormatError
from cnnc.tuning import read_tuning, write_tuning

AVX2, ARM = TARGETS["avx2"], TARGETS["arm64"]


def test_choices_are_kept_per_target(tmp_path: Path) -> None:
    path = tmp_path / "tune.json"
    write_tuning(path, AVX2, {"a": "direct", "b": "direct"})
    write_tuning(path, ARM, {"a": "winograd 2x2"})
    write_tuning(path, AVX2, {"b": "winograd 4x4"})
    assert read_tuning(path, AVX2) == {"a": "direct", "b": "winograd 4x4"}
    assert read_tuning(path, ARM) == {"a": "winograd 2x2"}
    assert read_tuning(path, TARGETS["avx512"]) == {}


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CnncError, match=r"cannot read .*none\.json: no such file"):
        read_tuning(tmp_path / "none.json", AVX2)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"avx2": 3}', '{"avx2": {"a": 3}}'])
def test_a_file_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tune.json"
    path.write_text(text)
    with pytest.raises(FormatError, match="is no tuning file"):
        read_tuning(path, AVX2)
