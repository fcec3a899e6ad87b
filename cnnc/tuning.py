"""Tuning files: which algorithm was measured to be the fastest for a convolution, per target.

Written by `cnnc tune`, read by `compile` and the command line, kept by the user beside the network.

    {"avx2": {"conv2d(f32[1,64,56,56], f32[64,64,3,3]) {stride=(1, 1), ...}": "winograd 4x4"}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cnnc.backend.target import Target
from cnnc.errors import CnncError, FormatError
from cnnc.files import reason, write_whole


def read_tuning(path: str | Path, target: Target) -> Mapping[str, str]:
    """The choices measured for a target, by choice key; none if the file has none for it.

    Raises CnncError if the file cannot be read, FormatError if it is no tuning file.
    """
    return _read(path).get(target.name, {})


def write_tuning(path: str | Path, target: Target, choices: Mapping[str, str]) -> None:
    """Add choices to a tuning file, which need not exist; what it says of other targets stays."""
    known = dict(_read(path)) if Path(path).exists() else {}
    known[target.name] = {**known.get(target.name, {}), **choices}
    text = json.dumps({name: dict(sorted(found.items())) for name, found in sorted(known.items())}, indent=1)
    write_whole(path, text + "\n")


def _read(path: str | Path) -> Mapping[str, Mapping[str, str]]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise CnncError(f"cannot read {path}: {reason(error)}") from None
    except UnicodeDecodeError:
        raise FormatError(f"{path} is no tuning file: it is not text") from None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError(f"{path} is no tuning file: {error}") from None
    if not isinstance(found, dict) or not all(_is_choices(choices) for choices in found.values()):
        raise FormatError(f"{path} is no tuning file: it must map targets to choices")
    return found


def _is_choices(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value.values())
