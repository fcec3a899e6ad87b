"""Options that several commands share: amounts of memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from cnnc.cli.options import parse_bytes
from tests.cli.conftest import Cnnc

Saved = Callable[[str, object], Path]
TRAINED = ("--train", "--batch", 16)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("65536", 65536),
        ("0", 0),
        ("500MB", 500 * 10**6),
        ("2GiB", 2 * 2**30),
        ("1.5 kB", 1500),
        ("0.1MiB", 104857),
        ("7b", 7),
        ("3tib", 3 * 2**40),
    ],
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert parse_bytes(None, None, text) == count
    assert parse_bytes(None, None, None) is None


@pytest.mark.parametrize("text", ["", "MB", "5XB", "-1", "1e6", "1.", "5 M B", "nan"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no amount of memory such as 500MB"):
        parse_bytes(None, None, text)


def workspace(cnnc: Cnnc, net: Path, *options: object) -> int:
    """Bytes, as `cnnc summary` tells them."""
    return int(json.loads(cnnc("summary", net, *options, "--json"))["workspace_bytes"])


def test_a_limit_is_kept_and_what_it_costs_is_told(cnnc: Cnnc, deep: Path) -> None:
    usual = workspace(cnnc, deep, *TRAINED)
    limit = ("--max-memory", f"{0.8 * usual / 1000:.3f}kB")
    assert workspace(cnnc, deep, *TRAINED, *limit) <= 0.8 * usual
    assert " in the backward pass, " in cnnc("summary", deep, *TRAINED, *limit)
    assert "computed again" not in cnnc("summary", deep, *TRAINED)
    assert ".again: f32" in cnnc("dump", deep, *TRAINED, *limit, "--after", "recompute_activations")
    assert ".again: f32" in cnnc("dump", deep, *TRAINED, *limit, "--stage", "planned")
    assert "conv2d" in cnnc("explain", deep, *TRAINED, *limit)


@pytest.mark.parametrize(
    "command",
    [
        ("summary",),
        ("summary", *TRAINED),
        ("dump",),
        ("explain", "--train"),
        ("bench",),
        ("build", "-o", "program"),
        ("build", "-o", "program", "--train"),
    ],
)
def test_a_limit_out_of_reach_is_one_line(
    cnnc: Cnnc, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *options = command
    line = cnnc.fails(name, tiny, *options, "--max-memory", "10B")
    assert "tiny.py:4: tiny: " in line and "in 10 bytes of memory is out of reach" in line
    assert "no amount of memory" in cnnc.fails(name, tiny, *options, "--max-memory", "much", status=2)
    assert not (tmp_path / "program").exists()


def test_limits_of_running_and_training(cnnc: Cnnc, tiny: Path, saved: Saved) -> None:
    images = saved("x", np.zeros((64, 6, 6), np.uint8))
    labels = saved("y", np.zeros(64, np.uint8))
    training = ("train", tiny, "--images", images, "--labels", labels, "--epochs", 1)
    roomy, cramped = ("--max-memory", "1GiB"), ("--max-memory", "10B")
    assert cnnc("run", tiny, images, *roomy) == cnnc("run", tiny, images)
    assert cnnc(*training, *roomy).startswith("epoch 1/1")
    assert "inference in 10 bytes" in cnnc.fails("run", tiny, images, *cramped)
    assert "a training step in 10 bytes" in cnnc.fails(*training, *cramped)


@pytest.mark.parametrize(
    "command", ["summary", "dump", "explain", "bench", "build", "run", "train", "verify"]
)
def test_every_command_that_compiles_takes_the_options(cnnc: Cnnc, command: str) -> None:
    told = cnnc(command, "--help")
    assert all(option in told for option in ("--tune", "--algorithm", "--strict", "--max-memory", "--target"))


def test_a_forced_algorithm_decides_what_is_compiled(cnnc: Cnnc, deep: Path, saved: Saved) -> None:
    forced, other = ("--algorithm", "winograd 2x2"), ("--strict",)
    assert "winograd_conv2d" in cnnc("dump", deep, *forced)
    assert "winograd" not in cnnc("dump", deep, *other)
    assert cnnc("dump", deep, "--stage", "kernels", *forced) != cnnc(
        "dump", deep, "--stage", "kernels", *other
    )
    image = saved("x", np.ones((1, 12, 12), np.float32))
    found, wanted = (json.loads(cnnc("run", deep, image, "--json", *how)) for how in (forced, other))
    (name,) = wanted
    np.testing.assert_allclose(found[name]["values"], wanted[name]["values"], rtol=1e-4)
    assert found != wanted
    assert "FAILED" not in cnnc("verify", deep, *forced)


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A classifier with several convolutions, whose activations are what needs memory."""
    path = tmp_path / "deep.py"
    path.write_text(DEEP)
    return path


DEEP = """
from cnnc import Network, conv2d, dense, flatten, softmax_cross_entropy, tanh

net = Network("deep")
x = net.input(1, 12, 12)
for _ in range(6):
    x = conv2d(x, 16, 3, pad=1, activation=tanh)
net.output(dense(flatten(x), 3))
net.loss(softmax_cross_entropy)
"""
