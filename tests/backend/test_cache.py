"""The object cache: hits, damage, bounds, other processes, places that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnc.backend.cache import ObjectCache, default_directory

WRITER = """
import sys
from pathlib import Path
from cnnc.backend.cache import ObjectCache
cache = ObjectCache(Path(sys.argv[1]), max_bytes=40_000)
for round in range(3):
    for i in range(40):
        assert cache.get(str(i), lambda: bytes([i]) * 2000) == bytes([i]) * 2000
"""


def counted(data: bytes) -> tuple[Callable[[], bytes], list[int]]:
    """A maker of this data, and how often it was called."""
    calls: list[int] = []

    def make() -> bytes:
        calls.append(1)
        return data

    return make, calls


def total(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.iterdir())


def test_made_once_per_key(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "deep" / "cache")
    make, calls = counted(b"code")
    other, others = counted(b"")
    for _ in range(2):
        assert cache.get("key", make) == b"code"
        assert cache.get("other key", other) == b""
    assert (len(calls), len(others)) == (1, 1)


def test_no_directory_keeps_nothing() -> None:
    make, calls = counted(b"code")
    assert ObjectCache(None).get("key", make) == ObjectCache(None).get("key", make) == b"code"
    assert len(calls) == 2


@pytest.mark.parametrize("damage", [b"", b"x", b"x" * 31, b"x" * 32, b"x" * 200])
def test_a_damaged_entry_is_made_anew(damage: bytes, tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    make, calls = counted(b"code" * 20)
    cache.get("key", make)
    (entry,) = tmp_path.iterdir()
    for content in (damage, entry.read_bytes()[:-1], entry.read_bytes() + b"x"):
        entry.write_bytes(content)
        before = len(calls)
        assert cache.get("key", make) == b"code" * 20
        assert len(calls) == before + 1
        assert cache.get("key", make) == b"code" * 20
        assert len(calls) == before + 1


def test_the_entries_used_longest_ago_go_first(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, max_bytes=10 * 1032)
    for i in range(10):
        cache.get(str(i), lambda: bytes(1000))
        (newest,) = [e for e in tmp_path.iterdir() if e.stat().st_mtime > 1e9]
        os.utime(newest, (i, i))
    cache.get("0", lambda: b"not asked for")
    cache.get("new", lambda: bytes(1000))
    assert total(tmp_path) <= 10 * 1032 * 3 // 4
    for key, kept in (("new", True), ("0", True), ("9", True), ("1", False), ("2", False)):
        make, calls = counted(bytes(1000))
        cache.get(key, make)
        assert (not calls) == kept, key


def test_an_object_larger_than_the_bound_is_returned_all_the_same(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, max_bytes=100)
    assert cache.get("key", lambda: bytes(1000)) == bytes(1000)
    assert total(tmp_path) <= 100


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        assert ObjectCache(directory).get("key", lambda: b"code") == b"code"


def test_errors_of_the_maker_are_the_callers(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise OSError("no such thing")

    with pytest.raises(OSError, match="no such thing"):
        ObjectCache(tmp_path).get("key", fail)
    assert list(tmp_path.iterdir()) == []


def test_several_processes_at_once(tmp_path: Path) -> None:
    """Readers, writers and removers of the same entries: each gets whole data, the bound holds."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert total(tmp_path) <= 40_000 + 3 * 2032
    assert all(entry.suffix == ".o" for entry in tmp_path.iterdir()), "no unfinished files"


def test_default_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "cnnc"
    for unset in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert default_directory() == Path.home() / ".cache" / "cnnc"


def test_many_entries_are_kept_at_once(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    cache.keep({"a": b"one", "b": b"two"})
    assert (cache.find("a"), cache.find("b"), cache.find("c")) == (b"one", b"two", None)
    cache.keep({})
    ObjectCache(None).keep({"a": b"one"})
