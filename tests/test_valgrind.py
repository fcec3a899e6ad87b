"""Built programs under valgrind: no access outside memory, nothing uninitialized that decides or is written,
no leak. Slow; skipped where there is no valgrind. It knows no AVX-512, so programs are built for AVX2."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.zoo import BY_NAME
from cnnc.backend.target import TARGETS
from cnnc.frontend.network import Network
from cnnc.native import runs_here
from cnnc.products import Emit, build_product
from cnnc.source import source_of
from cnnc.units import inference_unit, training_unit
from tests.programs import save_idx
from tests.small_networks import mixed, shaken
from tests.toy import needs_cc

VALGRIND = shutil.which("valgrind")
AVX2 = TARGETS["avx2"]
OPTIONS = ("--quiet", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=all")

pytestmark = [
    pytest.mark.slow,
    needs_cc,
    pytest.mark.skipif(VALGRIND is None, reason="no valgrind"),
    pytest.mark.skipif(not runs_here(AVX2), reason="needs AVX2"),
]


def lenet5() -> Network:
    return BY_NAME["lenet5"].declare(32)


def resnet18() -> Network:
    """For images of 64 x 64, whose maps end as single pixels."""
    return BY_NAME["resnet18"].declare(64)


def check(folder: Path, *command: str | Path) -> None:
    assert VALGRIND is not None
    whole = [VALGRIND, *OPTIONS, *command]
    done = subprocess.run(whole, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.mark.parametrize("make", [lenet5, mixed, resnet18])
def test_inference(make: Callable[[], Network], tmp_path: Path) -> None:
    """A whole batch, and a part of one."""
    source = source_of(make())
    weights = shaken(source.weights(None))
    build_product(inference_unit(source, 2, AVX2), Emit.PROGRAM, tmp_path / "program", weights)
    images = np.random.default_rng(0).standard_normal((3, *source.inputs[0].shape))
    np.save(tmp_path / "in.npy", images.astype(np.float32))
    check(tmp_path, tmp_path / "program", "in.npy", "out.npy", "--threads=2")
    assert np.isfinite(np.load(tmp_path / "out.npy")).all()


@pytest.mark.parametrize("make", [lenet5, mixed, resnet18])
def test_training(make: Callable[[], Network], tmp_path: Path) -> None:
    """An epoch, with images left over, and a test of what was learned."""
    source = source_of(make())
    assert source.classes is not None
    unit = training_unit(source, 8, AVX2)
    build_product(unit, Emit.PROGRAM, tmp_path / "program", source.weights(None))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (21, *source.inputs[0].shape)).astype(np.uint8)
    save_idx(tmp_path / "images.gz", images, compressed=True)
    save_idx(tmp_path / "labels", rng.integers(0, source.classes, 21).astype(np.uint8))
    data = ("--images", "images.gz", "--labels", "labels")
    tested = ("--test-images", "images.gz", "--test-labels", "labels")
    options = ("--out", "w.safetensors", "--epochs=1", "--threads=2")
    check(tmp_path, tmp_path / "program", *data, *tested, *options)
