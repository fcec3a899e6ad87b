"""Linking: every kind of product works or fails with one line, and nothing is left behind."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnc.backend.header import c_header
from cnnc.backend.link import build_program, build_shared, build_static, find_cc, write_object
from cnnc.errors import CnncError, UnsupportedError
from tests.toy import BATCH, CC, INFERENCE, TRAINING, logits, needs_cc, toy_object, weights

USE = """
#include <stdio.h>
#include "toy.h"
int main(void) {
    static float image[64], logits[12];
    static _Alignas(64) unsigned char workspace[TOY_WORKSPACE_BYTES];
    toy_run(TOY_BATCH, image, logits, toy_params, workspace, NULL);
    printf("%.6f", (double)logits[0]);
    return 0;
}
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return toy_object(INFERENCE, tmp_path_factory.mktemp("object"))


@needs_cc
def test_program_is_small_and_needs_libc_alone(code: bytes, tmp_path: Path) -> None:
    program = tmp_path / "toy"
    build_program(code, INFERENCE, program)
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy"]
    assert os.access(program, os.X_OK)
    assert program.stat().st_size < 100_000
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("toy: a convolutional network")
    if sys.platform == "linux" and shutil.which("ldd"):
        needed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        names = {Path(line.split()[0]).name.split(".")[0].split("-")[0] for line in needed.splitlines()}
        assert names <= {"linux", "libc", "libm", "libpthread", "ld"}


@needs_cc
def test_shared_library_runs_from_python(code: bytes, tmp_path: Path) -> None:
    path = tmp_path / "libtoy.so"
    build_shared(code, INFERENCE, path)
    assert (tmp_path / "toy.h").read_text() == c_header(INFERENCE)
    library = ctypes.CDLL(str(path))
    images = np.random.default_rng(0).normal(size=(BATCH, 1, 4, 4)).astype(np.float32)
    result = np.zeros((BATCH, 3), np.float32)
    workspace = np.zeros(INFERENCE.workspace_bytes, np.uint8)
    params = ctypes.addressof(ctypes.c_ubyte.in_dll(library, "toy_params"))
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (images, result)]
    library.toy_run(
        ctypes.c_int64(len(images)),
        *pointers,
        ctypes.c_void_p(params),
        ctypes.c_void_p(workspace.ctypes.data),
        None,
    )
    np.testing.assert_allclose(result, logits(images, weights()), rtol=1e-5, atol=1e-6)


@needs_cc
@pytest.mark.parametrize("kind", ["static", "object"])
def test_static_library_and_object_link_with_a_c_program(kind: str, code: bytes, tmp_path: Path) -> None:
    product = tmp_path / ("libtoy.a" if kind == "static" else "toy.o")
    (build_static if kind == "static" else write_object)(code, INFERENCE, product)
    source = tmp_path / "use.c"
    source.write_text(USE)
    subprocess.run(
        [str(CC), f"-I{tmp_path}", str(source), str(product), "-o", str(tmp_path / "use")], check=True
    )
    done = subprocess.run([tmp_path / "use"], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(float(weights()["fc.bias"][0]), abs=1e-5)


def test_no_compiler_says_what_works_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert find_cc() is None
    for build in (build_program, build_shared):
        with pytest.raises(UnsupportedError, match=r"no C compiler .* use --emit object, llvm or asm"):
            build(b"", INFERENCE, tmp_path / "toy")
    with pytest.raises(UnsupportedError, match="no archiver"):
        build_static(b"", INFERENCE, tmp_path / "toy.a")
    assert list(tmp_path.iterdir()) == []
    write_object(b"code", INFERENCE, tmp_path / "toy.o")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["toy.h", "toy.o"]


@needs_cc
def test_unwritable_places_give_one_line(code: bytes, tmp_path: Path) -> None:
    with pytest.raises(CnncError, match="no such file or directory") as caught:
        build_program(code, INFERENCE, tmp_path / "missing" / "toy")
    assert "\n" not in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CnncError, match="is a directory"):
        build_shared(code, INFERENCE, tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


@needs_cc
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_gives_one_line(code: bytes) -> None:
    mode = os.stat("/dev/full").st_mode
    with pytest.raises(CnncError, match="cannot write /dev/full: no space left on device"):
        build_program(code, INFERENCE, "/dev/full")
    assert os.stat("/dev/full").st_mode == mode


@needs_cc
def test_a_failing_linker_is_reported_and_keeps_the_old_file(code: bytes, tmp_path: Path) -> None:
    program = tmp_path / "toy"
    program.write_text("old")
    with pytest.raises(CnncError, match=r"cannot make .*toy: .* failed: .*") as caught:
        build_program(b"not an object", INFERENCE, program)
    assert "\n" not in str(caught.value)
    with pytest.raises(CnncError, match=r"undefined reference|symbol"):
        build_program(code, replace(INFERENCE, name="other"), program)
    assert program.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy"]


@needs_cc
def test_a_network_programs_cannot_serve_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="a training program needs"):
        build_program(b"", replace(TRAINING, inputs=TRAINING.inputs[:1]), tmp_path / "toy")
    assert list(tmp_path.iterdir()) == []
