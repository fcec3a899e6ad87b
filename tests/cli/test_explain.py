"""`cnnc explain`: reasons for algorithms and fusion, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Cnnc

NET = """
from cnnc import Network, add, conv2d, dense, flatten, max_pool, relu, softmax_cross_entropy

net = Network("branchy")
x = net.input(16, 12, 12)
y = conv2d(x, 16, 3, pad="same", activation=relu, name="wide")
y = add(conv2d(y, 16, 1, name="point"), y)
net.output(dense(flatten(max_pool(y, 3, 2)), 3))
net.loss(softmax_cross_entropy)
"""


def network(folder: Path) -> Path:
    path = folder / "branchy.py"
    path.write_text(NET)
    return path


def test_every_kernel_is_explained(cnnc: Cnnc, tmp_path: Path) -> None:
    found = json.loads(cnnc("explain", network(tmp_path), "--json", "--target", "avx2"))
    by_layer = {each["layer"]: each for each in found}
    wide, point = by_layer["wide"], by_layer["point"]
    assert (wide["op"], wide["reason"], wide["fused"]) == ("conv2d", "predicted", ["bias", "relu"])
    cheapest = min(wide["offers"], key=lambda offer: float(offer["cycles"]))
    assert wide["algorithm"] == cheapest["algorithm"]
    tiles = ("winograd 5x5", "winograd 4x4", "winograd 2x2", "inline winograd 5x5", "inline winograd 4x4")
    assert {offer["algorithm"] for offer in wide["offers"]} == {"direct", *tiles}
    assert (point["algorithm"], point["reason"], point["fused"]) == ("direct", "predicted", ["bias", "add"])
    assert any("windows do not tile" in reason for reason in point["refused"])


def test_an_algorithm_can_be_forced_or_forbidden(cnnc: Cnnc, tmp_path: Path) -> None:
    net = network(tmp_path)
    forced = json.loads(cnnc("explain", net, "--algorithm", "winograd 2x2", "--json"))
    assert [(e["algorithm"], e["reason"]) for e in forced if e["layer"] == "wide"] == [
        ("winograd 2x2", "forced")
    ]
    strict = json.loads(cnnc("explain", net, "--strict", "--train", "--batch", 2, "--json"))
    assert {e["algorithm"] for e in strict} <= {"", "direct"}


def test_a_table_without_json(cnnc: Cnnc, tmp_path: Path) -> None:
    lines = cnnc("explain", network(tmp_path)).splitlines()
    assert lines[0].split()[:4] == ["layer", "operation", "result", "algorithm"]
    assert any(line.startswith("wide ") and "predicted: " in line for line in lines)


NORMALIZED = """
from cnnc import Network, batch_norm, conv2d, dense, flatten, relu, softmax_cross_entropy

net = Network("normalized")
x = net.input(3, 12, 12)
x = batch_norm(conv2d(x, 8, 3, bias=False), activation=relu, name="norm")
x = conv2d(x, 16, 1, name="point")
net.output(dense(flatten(x), 3))
net.loss(softmax_cross_entropy)
"""


def test_what_makes_an_operand_is_told_apart(cnnc: Cnnc, tmp_path: Path) -> None:
    path = tmp_path / "normalized.py"
    path.write_text(NORMALIZED)
    found = json.loads(cnnc("explain", path, "--train", "--batch", 4, "--json"))
    kernels = [(e["op"], e["prologue"]) for e in found if e["layer"] == "point" and e["prologue"]]
    assert kernels == [("conv2d", ["map", "relu"]), ("conv2d_weight_grad", ["map", "relu"])]
    assert any(r == "no prologue: it reads several maps" for e in found for r in e["refused"])
    (point,) = (e for e in found if e["layer"] == "point" and e["op"] == "conv2d")
    assert point["fused"][0] == "bias"
    text = cnnc("explain", path, "--train", "--batch", 4)
    assert "map + relu in front; bias" in text
