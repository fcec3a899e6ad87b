"""Data files: .npy and IDX, plain or gzipped; images in their input's form; broken files."""

from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc import FormatError, InputSpec
from cnnc.frontend.data import (
    as_images,
    load_images,
    load_labelled,
    load_labels,
    read_array,
    save_npy,
)
from cnnc.ir.types import Array

MNIST = Path(__file__).parents[2] / "examples/data/mnist"
LENET = InputSpec("image", (1, 32, 32), 1.275 / 255, -0.1)


def idx(array: Array, code: int = 0x08) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def saved(folder: Path, array: Array, name: str = "a.npy") -> Path:
    save_npy(folder / name, array)
    return folder / name


def test_npy_comes_back(tmp_path: Path) -> None:
    for array in (np.arange(6.0).reshape(2, 3).T, np.array(7, "<i4"), np.zeros((0, 3), np.uint8)):
        back = read_array(saved(tmp_path, array))
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")]
)
def test_idx_comes_back(tmp_path: Path, code: int, dtype: str) -> None:
    array = np.arange(-6, 6).reshape(2, 3, 2).astype(dtype)
    for name, content in (("plain", idx(array, code)), ("zipped", gzip.compress(idx(array, code)))):
        (tmp_path / name).write_bytes(content)
        back = read_array(tmp_path / name)
        assert back.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(back, array)


def test_mnist() -> None:
    x, y = load_labelled(
        MNIST / "test-images-idx3-ubyte.gz", MNIST / "test-labels-idx1-ubyte.gz", LENET, classes=10
    )
    raw = read_array(MNIST / "test-images-idx3-ubyte.gz")
    assert (x.shape, y.shape) == ((1000, 1, 32, 32), (1000,))
    assert (str(x.dtype), str(y.dtype)) == ("float32", "int32")
    assert set(y) == set(range(10))
    scaled = raw.astype(np.float32) * np.float32(1.275 / 255) + np.float32(-0.1)
    np.testing.assert_array_equal(x[:, 0, 2:-2, 2:-2], scaled)
    assert (x[:, :, :2] == np.float32(-0.1)).all() and (x[..., -2:] == np.float32(-0.1)).all()


def test_images_with_and_without_batch_and_channel_axis() -> None:
    spec = InputSpec("image", (1, 4, 6))
    one = np.arange(24, dtype=np.uint8).reshape(1, 4, 6)
    expected = one[np.newaxis].astype(np.float32)
    np.testing.assert_array_equal(as_images(one, spec, "x"), expected)
    np.testing.assert_array_equal(as_images(one[np.newaxis], spec, "x"), expected)
    three = np.stack([one[0]] * 3)
    np.testing.assert_array_equal(as_images(three, spec, "x"), np.repeat(expected, 3, axis=0))


def test_floats_are_taken_as_they_are() -> None:
    images = np.full((2, 1, 30, 32), 0.3)
    assert (as_images(images, LENET, "x", center=True)[:, :, 1:-1] == np.float32(0.3)).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "center", "expected"),
    [
        ((5, 28, 28), "u1", False, r"x: shape \[5,28,28\] does not fit the input image of \[1,32,32\]"),
        ((5, 27, 28), "u1", True, "does not fit"),
        ((5, 34, 34), "u1", True, "does not fit"),
        ((5, 3, 32, 32), "u1", True, "does not fit"),
        ((1024,), "u1", True, "does not fit"),
        ((), "f4", True, "does not fit"),
        ((5, 32, 32), "i8", True, "x: dtype int64; uint8 pixels or floats are needed"),
    ],
)
def test_images_that_do_not_fit(shape: tuple[int, ...], dtype: str, center: bool, expected: str) -> None:
    with pytest.raises(FormatError, match=expected):
        as_images(np.zeros(shape, dtype), LENET, "x", center)


def test_labels(tmp_path: Path) -> None:
    path = saved(tmp_path, np.array([1, 0, 9], np.uint8))
    assert load_labels(path, 10).tolist() == [1, 0, 9]
    with pytest.raises(FormatError, match=r"a\.npy: label 2 is 9; the network has classes 0\.\.8"):
        load_labels(path, 9)
    with pytest.raises(FormatError, match="label 1 is -1"):
        load_labels(saved(tmp_path, np.array([1, -1])), 9)
    with pytest.raises(FormatError, match=r"float64\[2\]; labels are integers of shape \[n\]"):
        load_labels(saved(tmp_path, np.zeros(2)), 9)


def test_images_and_labels_must_be_equally_many(tmp_path: Path) -> None:
    images = saved(tmp_path, np.zeros((3, 32, 32), np.uint8), "images.npy")
    labels = saved(tmp_path, np.zeros(2, np.uint8), "labels.npy")
    with pytest.raises(FormatError, match=r"images\.npy has 3 images but .*labels\.npy has 2 labels"):
        load_labelled(images, labels, LENET, 10)
    none = saved(tmp_path, np.zeros((0, 32, 32), np.uint8), "none.npy")
    with pytest.raises(FormatError, match="has no images"):
        load_labelled(none, saved(tmp_path, np.zeros(0, int)), LENET, 10)


def test_broken_files(tmp_path: Path) -> None:
    images = idx(np.zeros((2, 3, 4), np.uint8))
    npy = saved(tmp_path, np.zeros((2, 3))).read_bytes()
    cases = {
        r"truncated IDX: 39 bytes, uint8\[2,3,4\] takes 40": images[:-1],
        "overlong IDX": images + b"x",
        "truncated IDX: 9 bytes, its header alone has 16": images[:9],
        "the gzip stream is truncated or damaged": gzip.compress(images)[:-9],
        "neither .npy nor IDX; it begins with b'\\\\x00\\\\x00\\\\x07": b"\0\0\7\1",
        "neither .npy nor IDX; it begins with b'PK": b"PK\3\4",
        "neither .npy nor IDX; it begins with b''": b"",
        "truncated or malformed .npy": npy[:-3],
        "truncated or malformed .npy: ": npy[:20],
        "truncated or malformed .npy: Object arrays": npy.replace(b"'<f8'", b"'|O' "),
    }
    for expected, content in cases.items():
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(FormatError, match=f"bad: {expected}"):
            load_images(tmp_path / "bad", LENET)
    with pytest.raises(FormatError, match=r"cannot read .*none\.npy: no such file or directory"):
        read_array(tmp_path / "none.npy")
    with pytest.raises(FormatError, match=r"cannot read .*: is a directory"):
        read_array(tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_never_gives_another_error(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = saved(Path(folder), np.zeros((2, 3), np.float32))
        good = data.draw(st.sampled_from([path.read_bytes(), idx(np.zeros((2, 3), np.uint8))]))
        damaged = bytearray(good)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(damaged[: data.draw(st.integers(0, len(good)))])
        try:
            read_array(path)
        except FormatError as error:
            assert "\n" not in str(error)
