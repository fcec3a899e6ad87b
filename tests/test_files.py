"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cnnc import CnncError
from cnnc.files import replaced, write_whole


def test_bytes_text_and_functions(tmp_path: Path) -> None:
    for content in (b"caf\xc3\xa9", "café", lambda file: file.write(b"caf\xc3\xa9")):
        write_whole(tmp_path / "f", content)
        assert (tmp_path / "f").read_bytes() == b"caf\xc3\xa9"
    assert os.listdir(tmp_path) == ["f"]


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", b"old")

    def fail(file: object) -> None:
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_whole(tmp_path / "f", fail)
    with (
        pytest.raises(CnncError, match=r"cannot write .*f: no space left on device"),
        replaced(tmp_path / "f"),
    ):
        Path("/dev/full").write_bytes(b"x")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_devices_and_links(tmp_path: Path) -> None:
    with pytest.raises(CnncError, match="cannot write /dev/full: no space left on device"):
        write_whole("/dev/full", b"x" * 100_000)
    assert not Path("/dev/full").is_file()
    write_whole(tmp_path / "f", b"old")
    (tmp_path / "link").symlink_to("f")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "f").read_bytes() == b"new"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CnncError, match=r"cannot write .*: no such file or directory"):
        write_whole(tmp_path / "none" / "f", b"x")
    with pytest.raises(CnncError, match=r"cannot write .*: it is a directory"):
        write_whole(tmp_path, b"x")
