"""Programs for arm64, run on this machine by qemu: skipped without qemu or a cross compiler."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnc.backend.link import build_program
from cnnc.backend.llvm import CodeGenerator
from cnnc.backend.target import TARGETS
from cnnc.frontend.network import Network
from cnnc.passes.choose_algorithms import Preferences
from cnnc.source import source_of
from cnnc.units import inference_unit
from tests.program_runner import assert_close, exact
from tests.small_networks import classifier, digits, mixed, shaken

CC = shutil.which("aarch64-linux-gnu-gcc")
QEMU = shutil.which("qemu-aarch64")
FORKING = replace(TARGETS["arm64"], fork_flops=0)
"""Divides every kernel that can be, so that small networks use all threads."""


@pytest.mark.skipif(not CC or not QEMU, reason="needs qemu-aarch64 and aarch64-linux-gnu-gcc")
@pytest.mark.parametrize("make", [classifier, mixed])
def test_a_program_computes_what_the_reference_does(make: Callable[[], Network], tmp_path: Path) -> None:
    """The same bits on any number of threads."""
    source, (images, _) = source_of(make()), digits(3)
    weights = shaken(source.initial_weights())
    compiled = inference_unit(source, 1, FORKING, Preferences(forced="winograd"))
    params = compiled.prepared(weights).tobytes()
    (tmp_path / "params").write_bytes(params)
    module = compiled.unit.module_ir((str(tmp_path / "params"), len(params)))
    program, given, written = tmp_path / "program", tmp_path / "in.npy", tmp_path / "out.npy"
    build_program(CodeGenerator(FORKING).object_code(module), compiled.interface(True), program, cc=CC)
    np.save(given, images)
    assert QEMU is not None
    results = []
    for threads in (1, 2, 3):
        command = [QEMU, "-L", "/usr/aarch64-linux-gnu", program, given, written, f"--threads={threads}"]
        subprocess.run(command, check=True)
        results.append(np.load(written))
    for image, row in zip(images, results[0], strict=True):
        expected = exact(source.graph, {source.inputs[0].name: image[None]}, weights)
        assert_close(row[None], expected.outputs[source.graph.outputs[0].name])
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
