"""`cnnc bench`: consistent numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cnnc.bench import measure, measured_peak
from cnnc.compiler import find_target
from tests.cli.conftest import Cnnc


@pytest.mark.parametrize(("options", "batch"), [([], 1), (["--train", "--batch", 4], 4)])
def test_numbers_fit_together(cnnc: Cnnc, tiny: Path, options: list[object], batch: int) -> None:
    result = json.loads(cnnc("bench", tiny, *options, "--seconds", 0.05, "--json"))
    timing = result["timing"]
    assert 0 < timing["best"] <= timing["median"]
    assert result["images_per_second"] == pytest.approx(batch / timing["best"])
    assert result["flops_per_second"] == pytest.approx(result["flops"] / timing["best"])
    assert 0 < result["share_of_peak"] < 1
    forward = 2 * batch * (4 * 4 * 4 * 9 + 3 * 16)
    assert result["flops"] >= forward if "--train" in options else result["flops"] == forward


def test_text(cnnc: Cnnc, tiny: Path) -> None:
    lines = cnnc("bench", tiny, "--seconds", 0.02, "--threads", 2).splitlines()
    assert lines[0].startswith("tiny: inference, batch 1, 2 threads, ")
    assert [line.split()[0] for line in lines[1:]] == ["best", "median", "images", "speed"]


def test_the_peak_is_that_of_a_processor() -> None:
    assert 1e9 < measured_peak(find_target("host")) < 1e12


def test_measure_counts_calls_but_the_first() -> None:
    calls: list[int] = []
    timing = measure(lambda: calls.append(0), 0.0)
    assert (len(calls), timing.calls) == (2, 1)


def test_a_text_graph_has_no_training_step(cnnc: Cnnc, tmp_path: Path) -> None:
    path = tmp_path / "g.txt"
    path.write_text("graph @g(%x: f32[1,4]) -> (%y) {\n  %y: f32[1,4] = relu(%x)\n}\n")
    assert "training needs a Network" in cnnc.fails("bench", path, "--train")
