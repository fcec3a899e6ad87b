"""`cnnc verify`: passes for right code, fails loudly for wrong code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cnnc.bound import BoundEntry
from cnnc.ops.elementwise import Relu
from cnnc.verify import Check
from tests.cli.conftest import Cnnc

LENET5 = Path(__file__).parents[2] / "examples" / "lenet5.py"


def test_lenet5_passes(cnnc: Cnnc) -> None:
    result = json.loads(cnnc("verify", LENET5, "--json"))
    assert result["passed"]
    checks = {check["name"].partition(" (")[0]: check for check in result["checks"]}
    assert list(checks) == ["output output", "gradients: central differences", "gradients: compiled"]
    assert [check["limit"] for check in checks.values()] == [1e-4, 1e-6, 1e-3]
    inference, training = result["proofs"]
    assert inference["kernels"] >= 5 and inference["accesses"] > 100 and inference["conflicts"] > 10
    assert training["accesses"] > inference["accesses"]


def test_table_and_text_graphs(cnnc: Cnnc, tiny: Path, tmp_path: Path) -> None:
    lines = cnnc("verify", tiny, "--batch", 3, "--seed", 5).splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["ok"] * 3
    assert lines[-1].startswith("training")
    path = tmp_path / "graph.txt"
    path.write_text(cnnc("dump", tiny, "--after", "source"))
    assert [c["name"] for c in json.loads(cnnc("verify", path, "--json"))["checks"]] == ["output digit"]


def test_wrong_outputs_fail(cnnc: Cnnc, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = BoundEntry.__call__

    def off(self: BoundEntry) -> None:
        call(self)
        for output in self.outputs:
            output *= np.float32(1.01)

    monkeypatch.setattr(BoundEntry, "__call__", off)
    result = cnnc.result("verify", tiny)
    assert result.status == 1
    assert result.out.count("FAILED") == 2


def test_a_wrong_derivative_fails(cnnc: Cnnc, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Relu, "grad", lambda self, emit, operands, results, grads: tuple(grads))
    result = json.loads(cnnc.result("verify", tiny, "--json").out)
    failed = [check["name"] for check in result["checks"] if not check["passed"]]
    assert failed == ["gradients: central differences"]
    assert not result["passed"]


def test_nothing_passes_with_nan() -> None:
    assert not Check("c", float("nan"), 1.0).passed
    assert Check("c", 1.0, 1.0).passed
