"""The toy network of tests/backend/toy.c: its interface, weights and object code, for tests of the C side."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from cnnc.backend.header import c_header
from cnnc.backend.interface import Interface, Port, weight_table
from cnnc.backend.link import find_cc
from cnnc.ir.types import Array

CC = find_cc()
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler")

BATCH = 4
SCALE, SHIFT = 1 / 255, -0.1
SHAPES = MappingProxyType({"fc.weight": (3, 1, 4, 4), "fc.bias": (3,)})
SOURCE = Path(__file__).parent / "backend" / "toy.c"

INFERENCE = Interface(
    name="toy",
    inputs=(Port("image", "f32", (BATCH, 1, 4, 4), SCALE, SHIFT),),
    outputs=(Port("logits", "f32", (BATCH, 3)),),
    weights=weight_table(SHAPES.items()),
    param_bytes=212,
    workspace_bytes=64,
    train=False,
    target="the toy machine",
    batch=BATCH,
    version="1.2.3",
    has_builtin_params=True,
)

TRAINING = replace(
    INFERENCE,
    inputs=(*INFERENCE.inputs, Port("labels", "i32", (BATCH,)), Port("lr", "f32", ())),
    outputs=(Port("loss", "f32", ()), Port("correct", "f32", ())),
    train=True,
    classes=3,
    learning_rate=0.5,
)


def weights(seed: int = 0) -> dict[str, Array]:
    """The weights that are built in for seed 0."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def logits(images: Array, values: dict[str, Array]) -> Array:
    """What the network computes for float images."""
    flat = images.reshape(len(images), 16).astype(np.float64)
    return flat @ values["fc.weight"].reshape(3, 16).T.astype(np.float64) + values["fc.bias"]


def pixels(images: Array) -> Array:
    """uint8 images as the network reads them."""
    return images.astype(np.float32) * np.float32(SCALE) + np.float32(SHIFT)


def packed(values: dict[str, Array]) -> bytes:
    """The parameter block of toy.c."""
    zero = np.zeros(1, np.float32)
    return np.concatenate([values["fc.bias"], zero, values["fc.weight"].ravel(), zero]).tobytes()


def toy_object(interface: Interface, folder: Path, supported: bool = True) -> bytes:
    """toy.c compiled against the interface's own header."""
    assert CC is not None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.h").write_text(c_header(interface))
    (folder / "toy_params.inc").write_text(",".join(map(str, packed(weights()))))
    macros = [f"-DTOY_SUPPORTED={int(supported)}"]
    macros += ["-DTOY_TRAIN"] if interface.train else []
    macros += ["-DTOY_BUILTIN"] if interface.has_builtin_params else []
    made = folder / "toy.o"
    flags = ["-std=c11", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{folder}"]
    subprocess.run([CC, *flags, *macros, "-c", str(SOURCE), "-o", str(made)], check=True)
    return made.read_bytes()
