"""The built programs of the toy network, and how tests run them."""

from __future__ import annotations

import gzip
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnc.ir.types import Array


@dataclass(frozen=True)
class Program:
    """A built program, which is called in a folder of its own."""

    path: Path

    def run(
        self, folder: Path, *arguments: str | Path, **options: object
    ) -> subprocess.CompletedProcess[str]:
        command = [str(self.path), *map(str, arguments)]
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=60, **options
        )

    def fails(self, folder: Path, *arguments: str | Path, status: int = 1, **options: object) -> str:
        """The one line of a call that must fail, and leaves no file that was not there before."""
        before = sorted(entry.name for entry in folder.iterdir())
        done = self.run(folder, *arguments, **options)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"{self.path.name}: "), done.stderr
        assert sorted(entry.name for entry in folder.iterdir()) == before
        return done.stderr.strip()


def idx(array: Array) -> bytes:
    """A uint8 array as an IDX file."""
    extents = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + extents + array.astype(np.uint8).tobytes()


def save_idx(path: Path, array: Array, compressed: bool = False) -> Path:
    path.write_bytes(gzip.compress(idx(array)) if compressed else idx(array))
    return path


def save_npy(path: Path, array: Array) -> Path:
    np.save(path, array)
    return path
