"""Objects on disk: compiled kernels by the hash of what they were made from.

Safe for several processes at once: an entry is written whole, under a name that fixes its contents.
A damaged entry is rebuilt, the oldest go when the cache grows beyond its bound.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnc.errors import CnncError
from cnnc.files import write_whole

MAX_BYTES = 512 * 1024 * 1024


def default_directory() -> Path:
    """Where caches belong: XDG_CACHE_HOME or ~/.cache, as the XDG base directory specification says."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "cnnc"


@dataclass(frozen=True)
class ObjectCache:
    """Files named by key in `directory`, None to keep nothing. A cache that cannot be written is no error."""

    directory: Path | None
    max_bytes: int = MAX_BYTES

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The bytes kept under `key` (any text), made and kept first if need be."""
        found = self.find(key)
        if found is not None:
            return found
        data = make()
        self.keep({key: data})
        return data

    def find(self, key: str) -> bytes | None:
        """The bytes kept under `key`; None if there are none, or none that are whole."""
        return None if self.directory is None else _checked(self._path(key))

    def keep(self, entries: Mapping[str, bytes]) -> None:
        """Keep bytes under their keys; no error if that cannot be. Many at a time: each call looks at the
        whole directory once, for its bound."""
        if self.directory is None or not entries:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for key, data in entries.items():
                write_whole(self._path(key), hashlib.sha256(data).digest() + data)
            self._trim()
        except (CnncError, OSError):
            return

    def _path(self, key: str) -> Path:
        assert self.directory is not None
        return self.directory / f"{hashlib.sha256(key.encode()).hexdigest()}.o"

    def _trim(self) -> None:
        """Remove the entries used longest ago until three quarters of the bound are left."""
        assert self.directory is not None
        with os.scandir(self.directory) as found:
            stats = [(entry.path, entry.stat()) for entry in found if entry.name.endswith(".o")]
        total = sum(stat.st_size for _, stat in stats)
        if total <= self.max_bytes:
            return
        for path, stat in sorted(stats, key=lambda each: each[1].st_mtime):
            Path(path).unlink(missing_ok=True)
            total -= stat.st_size
            if total <= self.max_bytes * 3 // 4:
                return


def _checked(path: Path) -> bytes | None:
    """An entry's data if it is there and whole; its time of use is renewed."""
    try:
        stored = path.read_bytes()
        if hashlib.sha256(stored[32:]).digest() != stored[:32]:
            return None
        os.utime(path)
    except OSError:
        return None
    return stored[32:]
