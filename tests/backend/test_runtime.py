"""The built inference program, around the toy network: what it reads, writes and refuses."""

from __future__ import annotations

import io
import resource
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cnnc.backend.header import c_header
from cnnc.backend.interface import Port
from cnnc.backend.link import build_program
from cnnc.ir.types import Array
from tests.programs import Program, save_npy
from tests.toy import BATCH, CC, INFERENCE, logits, needs_cc, pixels, toy_object, weights

pytestmark = needs_cc

RNG = np.random.default_rng(1)
FLOATS = RNG.normal(size=(6, 1, 4, 4)).astype(np.float32)
BYTES = RNG.integers(0, 256, size=(6, 1, 4, 4)).astype(np.uint8)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The program with its weights inside."""
    folder = tmp_path_factory.mktemp("inference")
    build_program(toy_object(INFERENCE, folder), INFERENCE, folder / "toy")
    return Program(folder / "toy")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The program that reads its weights from a file."""
    folder = tmp_path_factory.mktemp("bare")
    interface = replace(INFERENCE, has_builtin_params=False)
    build_program(toy_object(interface, folder), interface, folder / "bare")
    return Program(folder / "bare")


def outputs(program: Program, folder: Path, images: Array, *options: str | Path) -> Array:
    save_npy(folder / "in.npy", images)
    done = program.run(folder, "in.npy", "out.npy", *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    result: Array = np.load(folder / "out.npy")
    return result


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_a_batch_of_any_size(program: Program, tmp_path: Path, count: int) -> None:
    result = outputs(program, tmp_path, FLOATS[:count])
    assert result.dtype == np.float32 and result.shape == (count, 3)
    np.testing.assert_allclose(result, logits(FLOATS[:count], weights()), rtol=1e-5, atol=1e-6)


def test_one_image_has_no_batch_axis_and_the_same_bits(program: Program, tmp_path: Path) -> None:
    every = outputs(program, tmp_path, FLOATS)
    one = outputs(program, tmp_path, FLOATS[5])
    assert one.shape == (3,)
    assert one.tobytes() == every[5].tobytes()


def test_bytes_are_scaled_in_two_roundings(program: Program, tmp_path: Path) -> None:
    read = outputs(program, tmp_path, BYTES)
    assert read.tobytes() == outputs(program, tmp_path, pixels(BYTES)).tobytes()


def test_threads_change_nothing(program: Program, tmp_path: Path) -> None:
    assert (
        outputs(program, tmp_path, FLOATS).tobytes()
        == outputs(program, tmp_path, FLOATS, "--threads=2").tobytes()
    )


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_versions(program: Program, tmp_path: Path, version: tuple[int, int]) -> None:
    with open(tmp_path / "in.npy", "wb") as file:
        np.lib.format.write_array(file, FLOATS, version=version)
    assert program.run(tmp_path, "in.npy", "out.npy").returncode == 0
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), logits(FLOATS, weights()), rtol=1e-5, atol=1e-6)


def test_output_replaces_a_file_and_may_be_a_device(program: Program, tmp_path: Path) -> None:
    (tmp_path / "out.npy").write_text("old")
    outputs(program, tmp_path, FLOATS)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.npy", "out.npy"]
    done = program.run(tmp_path, "in.npy", "/dev/stdout", errors="replace")
    assert done.returncode == 0 and "NUMPY" in done.stdout


def test_help_says_what_it_is(program: Program, bare: Program, tmp_path: Path) -> None:
    done = program.run(tmp_path, "--help")
    assert done.returncode == 0
    for part in ("toy", "cnnc 1.2.3", "the toy machine", "image", "(1,4,4), or (N,1,4,4)", "logits", "(3,)"):
        assert part in done.stdout
    assert "parameters  51, inside the program" in done.stdout
    assert "v * 0.00392156886 - 0.100000001" in done.stdout
    assert "bare INPUT.npy OUTPUT.npy --weights W.safetensors" in bare.run(tmp_path, "-h").stdout


def test_weights_from_a_file(program: Program, bare: Program, tmp_path: Path) -> None:
    other = weights(seed=5)
    save_file(
        dict(reversed(other.items())), tmp_path / "w.safetensors", metadata={"note": 'a "b" \\ \u00e9 \n'}
    )
    for one in (program, bare):
        result = outputs(one, tmp_path, FLOATS, "--weights", "w.safetensors")
        np.testing.assert_allclose(result, logits(FLOATS, other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected INPUT.npy OUTPUT.npy, found 0 of 2 file names"),
        (["in.npy", "out.npy", "more"], "unexpected argument more"),
        (["in.npy", "out.npy", "--thread", "2"], "unknown option --thread"),
        (["in.npy", "out.npy", "--threads"], "--threads needs a value"),
        (["in.npy", "out.npy", "--threads", "0"], "--threads 0: expected a whole number from 1 to 1024"),
        (["in.npy", "out.npy", "--threads", "-1"], "--threads -1: expected a whole number"),
        (["in.npy", "out.npy", "--threads", "2x"], "--threads 2x: expected a whole number"),
        (["in.npy", "out.npy", "--threads=2", "--threads=3"], "--threads is given twice"),
    ],
)
def test_wrong_command_lines(program: Program, tmp_path: Path, arguments: list[str], message: str) -> None:
    line = program.fails(tmp_path, *arguments, status=2)
    assert message in line and "--help" in line


def test_weights_are_required_when_outside(bare: Program, tmp_path: Path) -> None:
    assert "--weights is needed" in bare.fails(tmp_path, "in.npy", "out.npy", status=2)


def npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


GOOD = npy(FLOATS)

BAD_INPUTS = {
    "empty": (b"", "is not an .npy file"),
    "text": (b"hello, world", "is not an .npy file"),
    "version": (GOOD[:6] + b"\x09" + GOOD[7:], ".npy version 9 is not known"),
    "header": (GOOD[:40], "truncated: the .npy header"),
    "truncated": (GOOD[:-1], "truncated: float32 of shape (6,1,4,4) takes 384 bytes, found 383"),
    "extra": (GOOD + b"x", "has extra bytes"),
    "shape": (
        npy(FLOATS[:, 0]),
        "expected float32 or uint8 of shape (1,4,4) or (N,1,4,4), found float32 of shape",
    ),
    "scalar": (npy(np.float32(1)), "found float32 of shape ()"),
    "double": (npy(FLOATS.astype(np.float64)), "found float64 of shape (6,1,4,4)"),
    "big-endian": (npy(FLOATS.astype(">f4")), "found >f4 of shape"),
    "order": (npy(np.asfortranarray(FLOATS)), "is in Fortran order"),
    "axes": (npy(np.zeros((1,) * 9, np.float32)), "has more than 8 axes"),
    "huge": (GOOD.replace(b"(6, 1, 4, 4)", b"(99999999999, 99999999999)"), "is too large"),
    "key": (GOOD.replace(b"fortran_order", b"fortran\norder"), "unknown key 'fortran?order'"),
    "missing": (GOOD.replace(b"'fortran_order': False, ", b" " * 24), "order or shape is missing"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_inputs_give_one_line_and_no_output(program: Program, tmp_path: Path, case: str) -> None:
    content, message = BAD_INPUTS[case]
    (tmp_path / "in.npy").write_bytes(content)
    line = program.fails(tmp_path, "in.npy", "out.npy")
    assert line.startswith("toy: in.npy: ") and message in line


def test_files_that_cannot_be_opened(program: Program, tmp_path: Path) -> None:
    assert "in.npy: cannot be opened: No such file" in program.fails(tmp_path, "in.npy", "out.npy")
    assert ".: cannot be read: Is a directory" in program.fails(tmp_path, ".", "out.npy")
    save_npy(tmp_path / "in.npy", FLOATS)
    assert "no/out.npy: cannot be written: No such file" in program.fails(tmp_path, "in.npy", "no/out.npy")
    assert "cannot be written" in program.fails(tmp_path, "in.npy", ".")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_device(program: Program, tmp_path: Path) -> None:
    save_npy(tmp_path / "in.npy", FLOATS)
    assert "/dev/full: cannot be written: No space left" in program.fails(tmp_path, "in.npy", "/dev/full")


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def test_a_file_that_cannot_be_completed_leaves_the_old_one(program: Program, tmp_path: Path) -> None:
    save_npy(tmp_path / "in.npy", FLOATS)
    (tmp_path / "out.npy").write_text("old")
    line = program.fails(tmp_path, "in.npy", "out.npy", preexec_fn=limit_files)
    assert "out.npy: cannot be written: File too large" in line
    assert (tmp_path / "out.npy").read_text() == "old"


def stored(tensors: dict[str, Array], folder: Path) -> bytes:
    save_file(tensors, folder / "made")
    content = (folder / "made").read_bytes()
    (folder / "made").unlink()
    return content


def bad_weights(case: str, folder: Path) -> tuple[bytes, str]:
    values = weights()
    good = stored(values, folder)
    half = {"fc.weight": values["fc.weight"].astype(np.float16), "fc.bias": values["fc.bias"]}
    cases = {
        "empty": (b"", "truncated"),
        "npy": (GOOD, "not a safetensors file"),
        "truncated": (good[:-4], "lies outside the file"),
        "missing": (stored({"fc.bias": values["fc.bias"]}, folder), "has no tensor fc.weight"),
        "unknown": (stored(values | {"x": values["fc.bias"]}, folder), "holds x, which is not a weight"),
        "shape": (
            stored(values | {"fc.bias": np.ones(4, np.float32)}, folder),
            "F32 of shape (4,), expected F32 of shape (3,)",
        ),
        "dtype": (stored(half, folder), "fc.weight is F16 of shape (3,1,4,4), expected F32"),
        "json": (good.replace(b'"dtype"', b"'dtype'"), "malformed header: expected"),
        "offsets": (good.replace(b'"data_offsets":[0', b'"data_offsets":[4'), "takes"),
        "overflow": (good.replace(b"[3]", b"[99999999999999999999999]"), "too large"),
    }
    return cases[case]


@pytest.mark.parametrize(
    "case",
    ["empty", "npy", "truncated", "missing", "unknown", "shape", "dtype", "json", "offsets", "overflow"],
)
def test_bad_weights(program: Program, tmp_path: Path, case: str) -> None:
    content, message = bad_weights(case, tmp_path)
    (tmp_path / "w.safetensors").write_bytes(content)
    save_npy(tmp_path / "in.npy", FLOATS)
    line = program.fails(tmp_path, "in.npy", "out.npy", "--weights", "w.safetensors")
    assert line.startswith("toy: w.safetensors: ") and message in line


def test_a_processor_that_lacks_instructions(tmp_path: Path) -> None:
    build_program(toy_object(INFERENCE, tmp_path / "object", supported=False), INFERENCE, tmp_path / "toy")
    save_npy(tmp_path / "in.npy", FLOATS)
    line = Program(tmp_path / "toy").fails(tmp_path, "in.npy", "out.npy")
    assert "this processor lacks instructions of the toy machine" in line


TWO = """
#include "two.h"
void two_run(int64_t images, const float *a, const float *b, float *sum, float *both, const void *params,
             void *workspace, cnnc_pool *pool) {
    (void)params, (void)workspace, (void)pool;
    for (int n = 0; n < images; n++) {
        sum[n] = a[2 * n] + a[2 * n + 1] + b[n];
        both[2 * n] = a[2 * n], both[2 * n + 1] = b[n];
    }
}
void two_pack(const float *weights, void *params, void *workspace) {
  (void)weights, (void)params, (void)workspace;
}
cnnc_pool *two_pool_create(int threads) { (void)threads; return NULL; }
void two_pool_destroy(cnnc_pool *pool) { (void)pool; }
int two_supported(void) { return 1; }
const unsigned char two_params[1];
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A network without weights, with two inputs and two outputs."""
    folder = tmp_path_factory.mktemp("two")
    inputs = (Port("a", "f32", (BATCH, 2)), Port("b", "f32", (BATCH, 1)))
    outputs = (Port("sum", "f32", (BATCH,)), Port("both", "f32", (BATCH, 2)))
    interface = replace(INFERENCE, name="two", inputs=inputs, outputs=outputs, weights=(), param_bytes=0)
    (folder / "two.h").write_text(c_header(interface))
    (folder / "two.c").write_text(TWO)
    subprocess.run([str(CC), "-c", "-fPIC", "two.c"], cwd=folder, check=True)
    build_program((folder / "two.o").read_bytes(), interface, folder / "two")
    return Program(folder / "two")


def test_several_inputs_and_outputs(two: Program, tmp_path: Path) -> None:
    a, b = np.arange(10, dtype=np.float32).reshape(5, 2), np.arange(5, dtype=np.uint8)[:, None]
    save_npy(tmp_path / "a.npy", a)
    save_npy(tmp_path / "b.npy", b)
    assert two.run(tmp_path, "a.npy", "b.npy", "sum.npy", "both.npy").returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "sum.npy"), a.sum(1) + b[:, 0])
    np.testing.assert_array_equal(np.load(tmp_path / "both.npy"), np.concatenate([a[:, 1:] - 1, b], 1))
    assert "two a.npy b.npy sum.npy both.npy" in two.run(tmp_path, "--help").stdout
    assert "cannot start 2 threads" in two.fails(tmp_path, *["a.npy", "b.npy"] * 2, "--threads", "2")


def test_inputs_must_agree_on_the_number_of_images(two: Program, tmp_path: Path) -> None:
    save_npy(tmp_path / "a.npy", np.zeros((5, 2), np.float32))
    save_npy(tmp_path / "b.npy", np.zeros((4, 1), np.float32))
    line = two.fails(tmp_path, "a.npy", "b.npy", "sum.npy", "both.npy")
    assert "b.npy: holds 4 images, but a.npy holds 5" in line
    save_npy(tmp_path / "b.npy", np.zeros(1, np.float32))
    line = two.fails(tmp_path, "a.npy", "b.npy", "sum.npy", "both.npy")
    assert "b.npy: holds 1 images (without batch axis), but a.npy holds 5" in line
