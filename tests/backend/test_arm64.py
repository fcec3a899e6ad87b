"""Programs for arm64, run on this machine by qemu: skipped without qemu or a cross compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cnnc import compile
from cnnc.backend.link import build_program
from cnnc.backend.llvm import CodeGenerator
from cnnc.backend.target import TARGETS
from cnnc.source import source_of
from cnnc.units import inference_unit
from tests.small_networks import classifier, digits

CC = shutil.which("aarch64-linux-gnu-gcc")
QEMU = shutil.which("qemu-aarch64")


@pytest.mark.skipif(not CC or not QEMU, reason="needs qemu-aarch64 and aarch64-linux-gnu-gcc")
def test_a_program_gives_what_the_model_gives(tmp_path: Path) -> None:
    source, (images, _) = source_of(classifier()), digits(3)
    weights = source.initial_weights()
    compiled = inference_unit(source, 1, TARGETS["arm64"])
    params = compiled.prepared(weights).tobytes()
    (tmp_path / "params").write_bytes(params)
    module = compiled.unit.module_ir((str(tmp_path / "params"), len(params)))
    program, given, written = tmp_path / "program", tmp_path / "in.npy", tmp_path / "out.npy"
    build_program(
        CodeGenerator(TARGETS["arm64"]).object_code(module), compiled.interface(True), program, cc=CC
    )
    np.save(given, images)
    assert QEMU is not None
    subprocess.run([QEMU, "-L", "/usr/aarch64-linux-gnu", program, given, written], check=True)
    expected = compile(source, weights=weights, cache=False)(images)
    np.testing.assert_allclose(np.load(written), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
