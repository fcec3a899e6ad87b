"""`cnnc build`: products in their places, one line on what was written, nothing left after a mistake."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnc.frontend.load import load_network
from cnnc.frontend.network import Network
from cnnc.frontend.weights import load_weights, save_weights
from tests.cli.conftest import Cnnc
from tests.toy import needs_cc


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@needs_cc
def test_a_program_computes_what_run_computes(
    cnnc: Cnnc, tiny: Path, tmp_path: Path, saved: Callable[[str, object], Path]
) -> None:
    network = load_network(str(tiny))
    assert isinstance(network, Network)
    weights = tmp_path / "w.safetensors"
    save_weights(weights, network.initial_weights(seed=7))
    images = saved("x", np.random.default_rng(0).integers(0, 256, (5, 1, 6, 6), np.uint8))
    printed = cnnc("build", tiny, "-o", tmp_path / "tiny", "--weights", weights)
    assert printed.startswith(f"{tmp_path / 'tiny'}: program for ") and printed.endswith("kB\n")
    cnnc("build", tiny, "-o", tmp_path / "outside", "--external-weights")
    cnnc("run", tiny, images, "-o", tmp_path / "y.npy", "--weights", weights)
    expected = np.load(tmp_path / "y.npy")
    for program, options in (("tiny", ()), ("outside", ("--weights", weights))):
        subprocess.run([tmp_path / program, images, tmp_path / "z.npy", *options], check=True)
        np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), expected)


def test_text_and_objects_need_no_tools(
    cnnc: Cnnc, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    out = tmp_path / "out"
    out.mkdir()
    for emit in ("object", "llvm", "asm"):
        assert f": {emit} for " in cnnc("build", tiny, "-o", out / f"tiny.{emit}", "--emit", emit)
    assert entries(out) == ["tiny.asm", "tiny.h", "tiny.llvm", "tiny.object"]
    assert "define void @tiny_run(" in (out / "tiny.llvm").read_text()
    assert "target triple" in (out / "tiny.llvm").read_text()
    line = cnnc.fails("build", tiny, "-o", out / "tiny")
    assert "no C compiler (cc)" in line and "--emit object, llvm or asm" in line
    assert "no archiver (ar)" in cnnc.fails("build", tiny, "-o", out / "tiny.a", "--emit", "static")
    assert len(entries(out)) == 4


def test_mistakes_leave_nothing_behind(cnnc: Cnnc, tiny: Path, tmp_path: Path) -> None:
    broken = tmp_path / "w.safetensors"
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    before = entries(tmp_path)
    cases: list[tuple[tuple[object, ...], str]] = [
        (("-o", tmp_path / "no" / "x", "--emit", "asm"), "no such file or directory"),
        (("-o", tmp_path, "--emit", "object"), "is a directory"),
        (("-o", tmp_path / "tiny.h", "--emit", "object"), "the header beside it has that name"),
        (("-o", tmp_path / "x", "--target", "sparc"), "unknown target 'sparc'"),
        (("-o", tmp_path / "x", "--weights", tmp_path / "none.npz"), "cannot read"),
        (("-o", tmp_path / "x", "--weights", broken), "not a readable .safetensors"),
        (("-o", tmp_path / "x", "--weights", tiny), "kept in a .safetensors or .npz"),
    ]
    for arguments, complaint in cases:
        assert complaint in cnnc.fails("build", tiny, *arguments)
    usage = cnnc.fails("build", tiny, "-o", "x", "--weights", broken, "--external-weights", status=2)
    assert "leaves them outside" in usage
    assert "holds no weights" in cnnc.fails(
        "build", tiny, "-o", "x", "--weights", broken, "--emit", "asm", status=2
    )
    assert "leave out --external" in cnnc.fails(
        "build", tiny, "-o", "x", "--train", "--external-weights", status=2
    )
    assert entries(tmp_path) == before


def test_wrong_weights_are_named(cnnc: Cnnc, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    save_weights(path, {"c1.weight": np.zeros((4, 1, 3, 3), np.float32)})
    assert "c1.bias" in cnnc.fails("build", tiny, "-o", tmp_path / "x", "--weights", path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk(cnnc: Cnnc, tiny: Path) -> None:
    line = cnnc.fails("build", tiny, "-o", "/dev/full", "--emit", "llvm")
    assert line == "cnnc: cannot write /dev/full: no space left on device"


@needs_cc
def test_a_training_program_learns_as_train_does(
    cnnc: Cnnc, tiny: Path, tmp_path: Path, saved: Callable[[str, object], Path]
) -> None:
    rng = np.random.default_rng(1)
    data = [
        "--images",
        saved("x", rng.integers(0, 256, (32, 6, 6), np.uint8)),
        "--labels",
        saved("l", rng.integers(0, 3, 32, np.uint8)),
        "--epochs",
        2,
    ]
    cnnc("build", tiny, "-o", tmp_path / "learn", "--train", "--batch", 8)
    program = [tmp_path / "learn", *data, "--out", tmp_path / "a.safetensors"]
    done = subprocess.run(list(map(str, program)), capture_output=True, text=True, check=True)
    printed = cnnc("train", tiny, *data, "--batch", 8, "--out", tmp_path / "b.npz")
    without_time = [[line.split("  ")[:-1] for line in text.splitlines()] for text in (done.stdout, printed)]
    assert without_time[0] == without_time[1]
    by_program, in_process = load_weights(tmp_path / "a.safetensors"), load_weights(tmp_path / "b.npz")
    assert by_program.keys() == in_process.keys()
    for name, weight in in_process.items():
        np.testing.assert_array_equal(by_program[name], weight)
