"""Weights on disk: safetensors and npz, keyed by parameter name, float32 in the logical order."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from cnnc.errors import FormatError, did_you_mean
from cnnc.files import write_whole
from cnnc.frontend.data import first_line, npy_bytes, read_file
from cnnc.ir.graph import Value
from cnnc.ir.types import Array

WeightName = Callable[[str], str | None]
"""The name a network has for an entry of a weights file; None for an entry it does not need."""

BATCH_COUNTER = ".num_batches_tracked"
"""PyTorch's batch norms count their batches; running statistics of constant momentum do not need that."""


def same_name(name: str) -> str:
    """What a network calls an entry that it calls as the file does."""
    return name


def load_weights(path: str | Path) -> dict[str, Array]:
    """Every tensor of a .safetensors or .npz file. Raises FormatError on a missing or broken file."""
    suffix = weights_suffix(path)
    content = read_file(path)
    try:
        if suffix == ".safetensors":
            return safetensors.numpy.load(content)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # the two readers raise a dozen types, some undocumented, on damaged bytes
        raise FormatError(f"{path}: not a readable {suffix} file: {first_line(error)}") from None


def save_weights(path: str | Path, weights: Mapping[str, Array]) -> None:
    """Write a .safetensors or .npz file, whole or not at all. Raises CnncError if it cannot."""
    tensors = {name: np.ascontiguousarray(w) for name, w in weights.items()}
    if weights_suffix(path) == ".safetensors":
        write_whole(path, safetensors.numpy.save(tensors))
        return
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        for name, weight in tensors.items():
            # A ZipInfo of its own carries no time stamp: equal weights give equal files.
            members.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_bytes(weight))
    write_whole(path, archive.getvalue())


def rename_weights(
    weights: Mapping[str, Array], own_name: WeightName, source: str | Path = "weights"
) -> dict[str, Array]:
    """The weights under a network's own names, without those it does not need and PyTorch's batch counters.

    Raises FormatError, begun with `source`, when two entries get one name.
    """
    renamed: dict[str, Array] = {}
    for name, weight in weights.items():
        own = None if name.endswith(BATCH_COUNTER) else own_name(name)
        if own in renamed:
            raise FormatError(f"{source}: {name} is one of several weights which the network calls {own}")
        if own is not None:
            renamed[own] = weight
    return renamed


def match_weights(
    params: Iterable[Value], weights: Mapping[str, Array], source: str | Path = "weights"
) -> dict[str, Array]:
    """The weights as contiguous float32 arrays, one for each parameter and of its shape.

    Raises FormatError, begun with `source`, when names are missing or unknown, a shape differs or
    a dtype is not a float's.
    """
    wanted = {p.name: p.type.shape for p in params}
    unknown = [name for name in weights if name not in wanted]
    missing = [name for name in wanted if name not in weights]
    if missing:
        hint = did_you_mean(missing[0], unknown).replace("did you mean", "the file has")
        raise FormatError(f"{source}: no {_listed(missing)}, which the network needs{hint.rstrip('?')}")
    if unknown:
        raise FormatError(f"{source}: holds {_listed(unknown)}, which the network does not have")
    return {name: _matched(name, weights[name], shape, source) for name, shape in wanted.items()}


def _matched(name: str, weight: Array, shape: tuple[int, ...], source: str | Path) -> Array:
    if weight.dtype.kind != "f":
        raise FormatError(f"{source}: {name} has dtype {weight.dtype}; floats are needed")
    if weight.shape != shape:
        found, needed = (f"[{','.join(map(str, s))}]" for s in (weight.shape, shape))
        raise FormatError(f"{source}: {name} has shape {found}, the network needs {needed}")
    return np.ascontiguousarray(weight, dtype=np.float32)


def _listed(names: list[str]) -> str:
    """Up to three of the names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def weights_suffix(path: str | Path) -> str:
    """The suffix of a weights file. Raises FormatError for a path with another."""
    suffix = Path(path).suffix
    if suffix not in (".safetensors", ".npz"):
        raise FormatError(f"{path}: weights are kept in a .safetensors or .npz file")
    return suffix
