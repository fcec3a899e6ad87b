"""`cnnc train`: learns, reports a line per epoch, keeps the last epoch's weights when interrupted."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnc.cli.train import epoch_line
from cnnc.frontend.weights import load_weights
from cnnc.trainer import Epoch, Trainer
from tests.cli.conftest import Cnnc

Save = Callable[[str, object], Path]
LINE = re.compile(r"epoch \d+/\d+  loss \d+\.\d{4}  accuracy (\d+\.\d\d) %(  test \d+\.\d\d %)?  \d+\.\d\d s")


@pytest.fixture
def data(saved: Save) -> list[object]:
    """Images whose bright third is their class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 64)
    images = rng.integers(0, 60, (64, 6, 6))
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 180
    return ["--images", saved("x", images.astype(np.uint8)), "--labels", saved("l", labels.astype(np.uint8))]


def test_it_learns_and_writes_the_weights(cnnc: Cnnc, tiny: Path, tmp_path: Path, data: list[object]) -> None:
    tests = ["--test-images", data[1], "--test-labels", data[3]]
    common = [*data, *tests, "--epochs", 15, "--batch", 16]
    lines = cnnc("train", tiny, *common, "--out", tmp_path / "w.npz").splitlines()
    matches = [LINE.fullmatch(line) for line in lines]
    assert len(lines) == 15 and all(matches)
    assert matches[-1] is not None and float(matches[-1][1]) > 90
    cnnc("train", tiny, *common, "--out", tmp_path / "v.npz", "--threads", 2)
    assert (tmp_path / "w.npz").read_bytes() == (tmp_path / "v.npz").read_bytes()
    cnnc("train", tiny, *common, "--out", tmp_path / "v.npz", "--seed", 1)
    assert (tmp_path / "w.npz").read_bytes() != (tmp_path / "v.npz").read_bytes()


def test_training_goes_on_from_weights(cnnc: Cnnc, tiny: Path, tmp_path: Path, data: list[object]) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    cnnc("train", tiny, *data, "--epochs", 1, "--batch", 16, "--out", first)
    cnnc("train", tiny, *data, "--epochs", 1, "--batch", 16, "--lr", 0, "--weights", first, "--out", second)
    assert first.read_bytes() == second.read_bytes()


def test_ctrl_c_keeps_the_last_epoch(
    cnnc: Cnnc, tiny: Path, tmp_path: Path, data: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt in the middle of the third epoch leaves the weights of the second."""
    step, steps = Trainer.step, 0

    def interrupted(self: Trainer, *arguments: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 10:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)  # type: ignore[arg-type]

    common = [*data, "--batch", 16]
    cnnc("train", tiny, *common, "--epochs", 2, "--out", tmp_path / "two.npz")
    monkeypatch.setattr(Trainer, "step", interrupted)
    result = cnnc.result("train", tiny, *common, "--epochs", 5, "--out", tmp_path / "w.npz")
    assert result.status == 130
    assert result.err == f"cnnc: interrupted after epoch 2: {tmp_path / 'w.npz'} holds its weights\n"
    assert len(result.out.splitlines()) == 2
    assert (tmp_path / "w.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    steps = 8
    result = cnnc.result("train", tiny, *common, "--epochs", 5, "--out", tmp_path / "none.npz")
    assert (result.status, result.out) == (130, "")
    assert "nothing was written" in result.err
    assert not (tmp_path / "none.npz").exists()


def test_squared_error_trains_on_targets(cnnc: Cnnc, tmp_path: Path, saved: Save) -> None:
    net = tmp_path / "line.py"
    net.write_text(
        "from cnnc import SGD, Network, dense, squared_error\n"
        "net = Network('line', optimizer=SGD(lr=0.1))\n"
        "net.output(dense(net.input(1), 1, name='d'))\n"
        "net.loss(squared_error)\n"
    )
    x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    data = ["--images", saved("x", x), "--labels", saved("y", 3 * x - 1)]
    lines = cnnc("train", net, *data, "--epochs", 60, "--batch", 8, "--out", tmp_path / "w.npz").splitlines()
    assert re.fullmatch(r"epoch 60/60  loss 0\.\d+  \d+\.\d\d s", lines[-1])
    weights = load_weights(tmp_path / "w.npz")
    assert weights["d.weight"].item() == pytest.approx(3, abs=0.05)
    assert weights["d.bias"].item() == pytest.approx(-1, abs=0.05)
    tests = ["--test-images", data[1], "--test-labels", data[3]]
    assert "no classes" in cnnc.fails("train", net, *data, *tests)
    short = saved("short", x[:5])
    assert "32 images but" in cnnc.fails("train", net, *data[:3], short)


def test_bad_data(cnnc: Cnnc, tiny: Path, tmp_path: Path, data: list[object], saved: Save) -> None:
    images, labels = data[:2], data[2:]
    wrong = saved("wrong", np.full(64, 3, np.uint8))
    assert "label 0 is 3; the network has classes 0..2" in cnnc.fails(
        "train", tiny, *images, "--labels", wrong
    )
    few = saved("few", np.zeros(5, np.uint8))
    assert "64 images but" in cnnc.fails("train", tiny, *images, "--labels", few)
    assert "fewer than one batch of 100" in cnnc.fails("train", tiny, *data, "--batch", 100)
    misshapen = saved("m", np.zeros((64, 7, 7), np.uint8))
    assert "does not fit the input" in cnnc.fails("train", tiny, "--images", misshapen, *labels)
    cut = tmp_path / "cut.idx"
    cut.write_bytes(b"\0\0\x08\x01\0\0\0\x09\1\2")
    assert "truncated IDX" in cnnc.fails("train", tiny, *images, "--labels", cut)


def test_bad_options_are_found_before_the_work(
    cnnc: Cnnc, tiny: Path, tmp_path: Path, data: list[object]
) -> None:
    assert "go together" in cnnc.fails("train", tiny, *data, "--test-images", "x", status=2)
    assert ".safetensors or .npz" in cnnc.fails("train", tiny, *data, "--out", "w.bin", status=2)
    assert "not a finite number" in cnnc.fails("train", tiny, *data, "--lr", "nan", status=2)
    assert "cannot write" in cnnc.fails("train", tiny, *data, "--out", tmp_path / "no" / "w.npz")
    tiny.write_text(tiny.read_text().replace("net.loss", "# net.loss"))
    assert "has no loss" in cnnc.fails("train", tiny, *data)


def test_epoch_line_as_built_programs_print_it() -> None:
    full = Epoch(1, 0.4321, 0.932, 0.956, 0.214)
    assert epoch_line(full, 10) == "epoch 1/10  loss 0.4321  accuracy 93.20 %  test 95.60 %  0.21 s"
