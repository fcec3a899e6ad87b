"""`cnnc summary`: the numbers of networks counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cnnc.cli.common import shown_bytes, shown_seconds
from tests.cli.conftest import Cnnc

LENET5 = Path(__file__).parents[2] / "examples" / "lenet5.py"


def test_lenet5_has_the_numbers_of_its_paper(cnnc: Cnnc) -> None:
    facts = json.loads(cnnc("summary", LENET5, "--json"))
    layers = {layer["name"]: layer for layer in facts["layers"]}
    assert facts["parameters"] == 61_706
    assert facts["macs"] == 117_600 + 240_000 + 48_000 + 10_080 + 840
    assert layers["c3"]["shape"] == [1, 16, 10, 10]
    assert layers["c3"]["ops"][0] == "conv2d"
    assert layers["c3"]["parameters"] == 16 * 6 * 25 + 16
    assert layers["flatten_1"]["activation_bytes"] == 0
    assert facts["arena_bytes"] >= facts["bound_bytes"] > 0
    assert facts["param_bytes"] >= 4 * 61_706
    assert facts["step_macs"] is None


def test_training_counts_the_batch_and_the_backward_pass(cnnc: Cnnc, tiny: Path) -> None:
    facts = json.loads(cnnc("summary", tiny, "--train", "--batch", 4, "--json"))
    forward = 4 * (4 * 4 * 4 * 9 + 3 * 16)
    assert facts["macs"] == forward
    assert 2 * forward < facts["step_macs"] <= 3 * forward
    assert facts["layers"][0]["shape"] == [4, 4, 4, 4]
    assert facts["layers"][-1]["name"] == "loss"
    assert facts["param_bytes"] >= 2 * 4 * facts["parameters"]  # weights and momentum


def test_table(cnnc: Cnnc, tiny: Path) -> None:
    lines = cnnc("summary", tiny).splitlines()
    assert lines[0].split() == ["layer", "ops", "output", "parameters", "MACs", "activations"]
    assert lines[1].split("  ")[0] == "c1"
    assert "conv2d + bias + relu" in lines[1]
    assert lines[1].split()[-4:] == ["40", "576", "256", "B"]
    assert lines[5].split()[:3] == ["total", "91", "624"]
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)


def test_text_graph_without_layers(cnnc: Cnnc, tmp_path: Path) -> None:
    path = tmp_path / "graph.txt"
    path.write_text("graph @g(%x: f32[1,4]) -> (%y) {\n  %y: f32[1,4] = relu(%x)\n}\n")
    (layer,) = json.loads(cnnc("summary", path, "--json"))["layers"]
    assert (layer["name"], layer["ops"], layer["activation_bytes"]) == ("y", ["relu"], 16)
    assert "training needs a Network" in cnnc.fails("summary", path, "--train")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (37_632, "37.6 kB"), (2_500_000, "2.5 MB"), (4 * 10**9, "4.0 GB")],
)
def test_shown_bytes(count: int, text: str) -> None:
    assert shown_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(9.42e-6, "9.42 us"), (0.0015, "1.5 ms"), (2.0, "2 s")])
def test_shown_seconds(seconds: float, text: str) -> None:
    assert shown_seconds(seconds) == text


def test_running_statistics_are_no_parameters(cnnc: Cnnc) -> None:
    """ResNet-18 has as many as everybody counts."""
    resnet18 = Path(__file__).parents[2] / "examples" / "resnet18.py"
    assert json.loads(cnnc("summary", resnet18, "--json"))["parameters"] == 11_689_512
