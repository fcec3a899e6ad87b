"""Data on disk: .npy and IDX (MNIST's format), plain or gzipped, told apart by their content.

IDX: two zero bytes, a dtype byte, the number of axes, the axes as big-endian 32-bit numbers, then
the elements, big-endian (http://yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import io
import math
import tokenize
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cnnc.errors import FormatError
from cnnc.files import reason, write_whole
from cnnc.frontend.inputs import InputSpec
from cnnc.ir.types import Array

IDX_DTYPES: Mapping[int, str] = MappingProxyType(
    {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
)


def read_file(path: str | Path) -> bytes:
    """The whole file. Raises FormatError when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FormatError(f"cannot read {path}: {reason(error)}") from None


def read_array(path: str | Path) -> Array:
    """The array in a .npy or IDX file. Raises FormatError when missing, truncated or malformed."""
    content = read_file(path)
    if content.startswith(b"\x1f\x8b"):
        content = _unzipped(path, content)
    if content.startswith(b"\x93NUMPY"):
        return _npy(path, content)
    if content.startswith(b"\0\0"):
        return _idx(path, content)
    raise FormatError(f"{path}: neither .npy nor IDX; it begins with {content[:4]!r}")


def save_npy(path: str | Path, array: Array) -> None:
    """Write a .npy file, whole or not at all. Raises CnncError if it cannot."""
    write_whole(path, npy_bytes(array))


def npy_bytes(array: Array) -> bytes:
    """The content of a .npy file."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
    return content.getvalue()


def first_line(error: BaseException) -> str:
    """What another library's error says, cut to one line; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def load_images(path: str | Path, spec: InputSpec, center: bool = False) -> Array:
    """Images for an input, float32 [n, *spec.shape]. See `as_images`."""
    return as_images(read_array(path), spec, str(path), center)


def as_images(array: Array, spec: InputSpec, source: str, center: bool = False) -> Array:
    """An array [n, *spec.shape] or [*spec.shape] as the float32 [n, *spec.shape] of an input.

    uint8 is a pixel and goes through the input's scale and shift; floats are taken as they are.
    [n, H, W] serves an input of one channel. With `center` (for training data), images smaller
    than the input by an even number of rows and columns are put in the middle of pixels of raw
    value 0: MNIST's 28x28 in LeNet-5's 32x32. Raises FormatError, begun with `source`.
    """
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise FormatError(f"{source}: dtype {array.dtype}; uint8 pixels or floats are needed")
    batch = _batched(array, spec.shape, center)
    if batch is None:
        found, wanted = _shown(array.shape), _shown(spec.shape)
        raise FormatError(f"{source}: shape {found} does not fit the input {spec.name} of {wanted}")
    table = spec.table()
    values = table[batch] if batch.dtype == np.uint8 else batch.astype(np.float32)
    return _framed(values, spec.shape, float(table[0]))


def load_labels(path: str | Path, classes: int) -> Array:
    """Class numbers, int32 [n]. Raises FormatError naming the first one outside 0..classes-1."""
    labels = read_array(path)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise FormatError(f"{path}: {labels.dtype}{_shown(labels.shape)}; labels are integers of shape [n]")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        index = wrong[0]
        raise FormatError(
            f"{path}: label {index} is {labels[index]}; the network has classes 0..{classes - 1}"
        )
    return labels.astype(np.int32)


def load_labelled(
    images: str | Path, labels: str | Path, spec: InputSpec, classes: int
) -> tuple[Array, Array]:
    """Training or test data: centred float32 images and int32 labels, equally many, at least one."""
    x, y = load_images(images, spec, center=True), load_labels(labels, classes)
    if len(x) != len(y):
        raise FormatError(f"{images} has {len(x)} images but {labels} has {len(y)} labels")
    if not len(x):
        raise FormatError(f"{images} has no images")
    return x, y


def _unzipped(path: str | Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error):
        raise FormatError(f"{path}: the gzip stream is truncated or damaged") from None


def _npy(path: str | Path, content: bytes) -> Array:
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, TypeError, EOFError, MemoryError, OverflowError, tokenize.TokenError) as error:
        raise FormatError(f"{path}: truncated or malformed .npy: {first_line(error)}") from None
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _idx(path: str | Path, content: bytes) -> Array:
    if len(content) < 4 or content[2] not in IDX_DTYPES:
        raise FormatError(f"{path}: neither .npy nor IDX; it begins with {content[:4]!r}")
    dtype, rank = np.dtype(IDX_DTYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise FormatError(f"{path}: truncated IDX: {len(content)} bytes, its header alone has {start}")
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    needed = start + math.prod(shape) * dtype.itemsize
    if len(content) != needed:
        what = "truncated" if len(content) < needed else "overlong"
        raise FormatError(
            f"{path}: {what} IDX: {len(content)} bytes, {dtype.name}{_shown(shape)} takes {needed}"
        )
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def _batched(array: Array, shape: tuple[int, ...], center: bool) -> Array | None:
    """The array with a batch axis (and the channel axis of [n,H,W]), None if its shape does not fit."""
    candidates = [array, array[np.newaxis]]
    if len(shape) == 3 and shape[0] == 1 and array.ndim == 3:
        candidates.append(array[:, np.newaxis])
    return next((c for c in candidates if _fits(c.shape[1:], shape, center)), None)


def _fits(found: tuple[int, ...], shape: tuple[int, ...], center: bool) -> bool:
    if found == shape or len(found) != len(shape):
        return found == shape
    gaps = [whole - part for whole, part in zip(shape[1:], found[1:], strict=True)]
    return center and found[0] == shape[0] and all(g >= 0 and g % 2 == 0 for g in gaps)


def _framed(values: Array, shape: tuple[int, ...], border: float) -> Array:
    """[n, ...] centred in [n, *shape] on `border`."""
    gaps = [(whole - part) // 2 for whole, part in zip(shape, values.shape[1:], strict=True)]
    if not any(gaps):
        return np.ascontiguousarray(values)
    return np.pad(values, [(0, 0), *((g, g) for g in gaps)], constant_values=border)


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
