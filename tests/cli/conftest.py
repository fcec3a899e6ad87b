"""A tiny network in a file, the `cnnc` command in this process, and a cache of kernels for the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cnnc.cli.main import run_command

TINY = """
from cnnc import SGD, Network, conv2d, dense, flatten, max_pool, relu, softmax_cross_entropy

net = Network("tiny", optimizer=SGD(lr=0.1, momentum=0.9))
x = net.input(1, 6, 6, scale=1 / 255)
x = max_pool(conv2d(x, 4, 3, activation=relu, name="c1"), 2)
net.output(dense(flatten(x), 3, name="digit"))
net.loss(softmax_cross_entropy)
"""


@dataclass(frozen=True)
class Result:
    """What a call of the command left."""

    status: int
    out: str
    err: str


class Cnnc:
    """`cnnc(...)` must succeed and gives what it printed; `cnnc.fails(...)` must say why in one line."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def result(self, *arguments: object) -> Result:
        self._capsys.readouterr()
        status = run_command([str(a) for a in arguments])
        captured = self._capsys.readouterr()
        return Result(status, captured.out, captured.err)

    def __call__(self, *arguments: object) -> str:
        result = self.result(*arguments)
        assert (result.status, result.err) == (0, "")
        return result.out

    def fails(self, *arguments: object, status: int = 1) -> str:
        result = self.result(*arguments)
        assert (result.status, result.out) == (status, ""), result
        assert result.err.startswith("cnnc: ") and result.err.count("\n") == 1, result.err
        return result.err.strip()


@pytest.fixture
def cnnc(capsys: pytest.CaptureFixture[str]) -> Cnnc:
    return Cnnc(capsys)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A classifier of 6x6 pixels into 3 classes."""
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str, object], Path]:
    """Writes an array as NAME.npy."""

    def save(name: str, array: object) -> Path:
        path = tmp_path / f"{name}.npy"
        np.save(path, np.asarray(array))
        return path

    return save
