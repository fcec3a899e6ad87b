"""`cnnc tune`: measures, writes a file, and other commands use it."""

from __future__ import annotations

import json
from pathlib import Path

from cnnc.backend.llvm import host
from tests.cli.conftest import Cnnc
from tests.cli.test_explain import network


def test_what_was_measured_is_used(cnnc: Cnnc, tmp_path: Path) -> None:
    net, path = network(tmp_path), tmp_path / "tune.json"
    result = cnnc.result("tune", net, "-o", path, "--seconds", 0.01)
    assert result.status == 0
    choices = json.loads(path.read_text())[host().name]
    key, point = sorted(choices, key=lambda each: "f32[16,16,3,3]" not in each)
    assert key.startswith("conv2d(f32[1,16,12,12], f32[16,16,3,3])")
    assert point.startswith("conv2d(f32[1,16,12,12], f32[16,16,1,1])")
    found = json.loads(cnnc("explain", net, "--tune", path, "--json"))
    assert [(e["algorithm"], e["reason"]) for e in found if e["layer"] == "wide"] == [
        (choices[key], "measured")
    ]


def test_a_file_that_cannot_be_written_is_told_at_once(cnnc: Cnnc, tmp_path: Path) -> None:
    assert "cannot write" in cnnc.fails("tune", network(tmp_path), "-o", tmp_path / "none" / "t.json")


def test_a_file_that_is_no_tuning_file(cnnc: Cnnc, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("[1]")
    assert "is no tuning file" in cnnc.fails("explain", network(tmp_path), "--tune", bad)
