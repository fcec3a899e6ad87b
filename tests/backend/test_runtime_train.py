"""The built training program, around the toy network: the weights of training from Python, bit for bit."""

from __future__ import annotations

import ctypes
import gzip
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cnnc.backend.link import build_program, build_shared
from cnnc.ir.types import Array
from cnnc.shuffle import Shuffle
from tests.programs import Program, idx, save_idx, save_npy
from tests.toy import BATCH, TRAINING, logits, needs_cc, packed, pixels, toy_object, weights

pytestmark = needs_cc

RNG = np.random.default_rng(2)
IMAGES = RNG.integers(0, 256, size=(23, 1, 4, 4)).astype(np.uint8)
LABELS = RNG.integers(0, 3, size=23).astype(np.uint8)
BASIC = ("--images", "images.npy", "--labels", "labels.npy", "--out", "w.safetensors")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    folder = tmp_path_factory.mktemp("training")
    build_program(toy_object(TRAINING, folder), TRAINING, folder / "train")
    return Program(folder / "train")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("library")
    build_shared(toy_object(TRAINING, folder), TRAINING, folder / "libtoy.so")
    return ctypes.CDLL(str(folder / "libtoy.so"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    save_npy(tmp_path / "images.npy", IMAGES)
    save_npy(tmp_path / "labels.npy", LABELS)
    return tmp_path


def trained(program: Program, folder: Path, *arguments: str | Path) -> tuple[list[str], dict[str, Array]]:
    done = program.run(folder, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines(), load_file(folder / "w.safetensors")


def same(a: dict[str, Array], b: dict[str, Array]) -> bool:
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def train_in_python(
    library: ctypes.CDLL, epochs: int, lr: float, seed: int
) -> tuple[float, float, dict[str, Array]]:
    """The program's loop by ctypes: last epoch's loss and accuracy, and the weights."""
    params = np.frombuffer(packed(weights()), np.uint8).copy()
    workspace, rate = np.zeros(64, np.uint8), np.float32([lr])
    loss, correct = np.zeros(1, np.float32), np.zeros(1, np.float32)
    shuffle, batches = Shuffle(seed, len(IMAGES)), len(IMAGES) // BATCH
    for _ in range(epochs):
        order, losses, hits = shuffle.next_order(), 0.0, 0.0
        for batch in range(batches):
            chosen = order[batch * BATCH : (batch + 1) * BATCH]
            image, label = pixels(IMAGES[chosen]), LABELS[chosen].astype(np.int32)
            arrays = (image, label, rate, loss, correct, params, workspace)
            library.toy_step(*(ctypes.c_void_p(a.ctypes.data) for a in arrays), None)
            losses, hits = losses + float(loss[0]), hits + float(correct[0])
    floats = np.zeros(TRAINING.parameters, np.float32)
    library.toy_unpack(ctypes.c_void_p(params.ctypes.data), ctypes.c_void_p(floats.ctypes.data))
    values = {w.name: floats[w.offset : w.offset + w.size].reshape(w.shape) for w in TRAINING.weights}
    return losses / batches, hits / (batches * BATCH), values


def test_trains_as_python_does(program: Program, library: ctypes.CDLL, data: Path) -> None:
    lines, values = trained(
        program, data, *BASIC, "--epochs", "3", "--lr", "0.3", "--seed", "9", "--batch", "4"
    )
    loss, accuracy, expected = train_in_python(library, epochs=3, lr=0.3, seed=9)
    assert same(values, expected)
    assert len(lines) == 3
    assert re.fullmatch(
        rf"epoch 3/3  loss {loss:.4f}  accuracy {100 * accuracy:.2f} %  \d+\.\d\d s", lines[2]
    )


def test_defaults_and_threads(program: Program, library: ctypes.CDLL, data: Path) -> None:
    lines, values = trained(program, data, *BASIC, "--threads", "2")
    assert len(lines) == 10
    assert same(values, train_in_python(library, epochs=10, lr=TRAINING.learning_rate, seed=0)[2])


def test_every_form_of_the_same_data(program: Program, data: Path) -> None:
    expected = trained(program, data, *BASIC)[1]
    save_idx(data / "images.idx", IMAGES[:, 0])
    save_idx(data / "images.gz", IMAGES[:, 0], compressed=True)
    save_npy(data / "floats.npy", pixels(IMAGES))
    save_idx(data / "labels.gz", LABELS, compressed=True)
    save_npy(data / "labels32.npy", LABELS.astype(np.int32))
    save_npy(data / "labels64.npy", LABELS.astype(np.int64))
    pairs = [("images.idx", "labels.gz"), ("images.gz", "labels32.npy"), ("floats.npy", "labels64.npy")]
    for images, labels in pairs:
        (data / "w.safetensors").unlink()
        values = trained(program, data, "--images", images, "--labels", labels, "--out", "w.safetensors")[1]
        assert same(values, expected)


def test_smaller_images_are_centred_on_raw_zero(program: Program, data: Path) -> None:
    small = IMAGES[:, 0, 1:3, :]
    save_npy(data / "images.npy", np.pad(small, ((0, 0), (1, 1), (0, 0)))[:, None])
    expected = trained(program, data, *BASIC)[1]
    save_idx(data / "images.npy", small)
    assert same(trained(program, data, *BASIC)[1], expected)


@pytest.mark.parametrize("count", [1, 3, 4, 7, 23])
def test_test_accuracy_counts_every_image_once(program: Program, data: Path, count: int) -> None:
    images, labels = RNG.integers(0, 256, size=(count, 1, 4, 4)), RNG.integers(0, 3, size=count)
    save_npy(data / "ti.npy", images.astype(np.uint8))
    save_npy(data / "tl.npy", labels)
    test = ("--test-images", "ti.npy", "--test-labels", "tl.npy", "--epochs", "1")
    lines, values = trained(program, data, *BASIC, *test)
    right = np.mean(logits(pixels(images), values).argmax(1) == labels)
    assert f"  test {100 * right:.2f} %  " in lines[0]


def test_begins_with_given_weights(program: Program, data: Path) -> None:
    save_file(weights(3), data / "start.safetensors")
    values = trained(program, data, *BASIC, "--weights", "start.safetensors", "--lr", "0")[1]
    assert same(values, weights(3))


def test_help(program: Program, tmp_path: Path) -> None:
    text = program.run(tmp_path, "--help").stdout
    for part in (
        "toy",
        "cnnc 1.2.3",
        "the toy machine",
        "parameters  51",
        "(N,1,4,4)",
        "images per step: 4",
        "(0.5)",
    ):
        assert part in text


def test_interrupt_keeps_the_last_finished_epoch(program: Program, data: Path) -> None:
    command = [str(program.path), *BASIC, "--epochs", "1000000"]
    with subprocess.Popen(command, cwd=data, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
    assert process.returncode == 130
    finished = re.findall(r"interrupted: w.safetensors holds the weights of epoch (\d+)", output)[0]
    kept = load_file(data / "w.safetensors")
    assert same(trained(program, data, *BASIC, "--epochs", finished)[1], kept)


def catches_interrupt(process: subprocess.Popen[str]) -> bool:
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGINT - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_interrupt_in_the_first_epoch_writes_nothing(program: Program, data: Path) -> None:
    save_npy(data / "images.npy", np.zeros((4_000_000, 1, 4, 4), np.uint8))
    save_npy(data / "labels.npy", np.zeros(4_000_000, np.uint8))
    with subprocess.Popen(
        [str(program.path), *BASIC], cwd=data, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while process.poll() is None and not catches_interrupt(process):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        message = process.stderr.read()
    assert process.returncode == 1
    assert (
        message
        == "train: w.safetensors: interrupted before the end of the first epoch: nothing was written\n"
    )
    assert not (data / "w.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "i", "--labels", "l"], "--out is needed"),
        ([*BASIC, "--test-images", "i"], "--test-images and --test-labels go together"),
        ([*BASIC, "--batch", "8"], "--batch 8: this program was built for batches of 4"),
        ([*BASIC, "--lr", "-1"], "--lr -1: expected a number of at least 0"),
        ([*BASIC, "--lr", "nan"], "--lr nan: expected"),
        ([*BASIC, "--epochs", "0"], "--epochs 0: expected a whole number from 1"),
        ([*BASIC, "--seed", "18446744073709551616"], "--seed 18446744073709551616: expected"),
        ([*BASIC, "more"], "unexpected argument more"),
    ],
)
def test_wrong_command_lines(program: Program, data: Path, arguments: list[str], message: str) -> None:
    assert message in program.fails(data, *arguments, status=2)


BAD_IMAGES = {
    "odd": (
        idx(IMAGES[:, 0, :3]),
        "expected uint8 or float32 images of shape (N,1,4,4), or smaller by an even",
    ),
    "larger": (idx(np.zeros((23, 6, 6))), "found uint8 of shape (23,6,6)"),
    "none": (idx(IMAGES[:0, 0]), "holds no images"),
    "few": (idx(IMAGES[:3, 0]), "3 images"),
    "truncated": (idx(IMAGES)[:-1], "truncated: uint8 of shape (23,1,4,4) takes 368 bytes, found 367"),
    "header": (idx(IMAGES)[:7], "truncated: the IDX header"),
    "type": (b"\0\0\x0d\1\0\0\0\0", "IDX element type 0x0d, expected 0x08"),
    "huge": (b"\0\0\x08\x08" + b"\xff" * 32, "is too large"),
    "text": (b"hello", "is neither an .npy nor an IDX file"),
    "gzip": (gzip.compress(idx(IMAGES))[:-20] + b"\0\1\0\0" * 2, "damaged gzip file: "),
    "checksum": (
        gzip.compress(idx(IMAGES))[:-8] + b"1234" + gzip.compress(idx(IMAGES))[-4:],
        "checksum is wrong",
    ),
    "size": (gzip.compress(idx(IMAGES))[:-1] + b"\xff", "no possible size"),
    "short": (gzip.compress(b"")[:12], "truncated: the gzip header"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images(program: Program, data: Path, case: str) -> None:
    content, message = BAD_IMAGES[case]
    (data / "images.npy").write_bytes(content)
    assert message in program.fails(data, *BASIC)


def test_fewer_images_than_a_batch(program: Program, data: Path) -> None:
    save_npy(data / "images.npy", IMAGES[:3])
    save_npy(data / "labels.npy", LABELS[:3])
    assert "images.npy: holds 3 images, fewer than one batch of 4" in program.fails(data, *BASIC)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.where(np.arange(23) == 17, 3, 0), "label 17 is 3, but the network's classes are 0 to 2"),
        (np.where(np.arange(23) == 5, -1, 0).astype(np.int32), "label 5 is -1, but"),
        (LABELS[:20], "20 labels for the 23 images of images.npy"),
        (
            LABELS.astype(np.float32),
            "expected uint8, int32 or int64 labels of shape (N,), found float32 of shape (23,)",
        ),
        (LABELS[:, None], "found uint8 of shape (23,1)"),
    ],
)
def test_bad_labels(program: Program, data: Path, labels: Array, message: str) -> None:
    save_npy(data / "labels.npy", labels)
    line = program.fails(data, *BASIC)
    assert line.startswith("train: labels.npy: ") and message in line


def test_an_unwritable_result_is_noticed_before_training(program: Program, data: Path) -> None:
    arguments = (*BASIC[:-1], "no/w.safetensors")
    assert "no/w.safetensors: cannot be written: No such file" in program.fails(data, *arguments)
    assert ".: cannot be written: Is a directory" in program.fails(data, *BASIC[:-1], ".")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk(program: Program, data: Path) -> None:
    line = program.fails(data, *BASIC[:-1], "/dev/full")
    assert "/dev/full: cannot be written: No space left on device" in line
