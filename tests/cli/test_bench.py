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


def test_layer_by_layer(cnnc: Cnnc, tiny: Path) -> None:
    rows = json.loads(cnnc("bench", tiny, "--layers", "--seconds", 0.02, "--json"))
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    (conv,) = [row for row in rows if row["op"] == "conv2d"]
    assert conv["algorithm"] == "direct" and 0 < conv["best"] <= conv["median"]
    assert conv["macs"] == 4 * 4 * 4 * 9 and conv["nbytes"] > 0


def test_layers_of_a_training_step_tell_directions_apart(cnnc: Cnnc, tiny: Path) -> None:
    text = cnnc("bench", tiny, "--layers", "--train", "--batch", 2, "--seconds", 0.02)
    assert "conv2d_weight_grad" in text and text.splitlines()[-1].startswith("total ")


def test_a_picture(cnnc: Cnnc, tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "roofline.png"
    cnnc("bench", tiny, "--roofline", picture, "--seconds", 0.02)
    assert picture.read_bytes()[:4] == b"\x89PNG"
