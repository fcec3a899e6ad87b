"""The documents: examples print what they say, the list of files is complete, links lead somewhere.

A block fenced as `python run` is run as a file net.py, all of a document in one module; a block fenced as
`output` right behind it is what it prints.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cnnc.cli.main import cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("cnnc", "frontend", "passes", "backend", "examples", "benchmarks", "tests")
EXAMPLE = re.compile(r"^```python run\n(.*?)^```\n(?:```output\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def with_examples() -> list[Path]:
    return [path for path in DOCUMENTS if EXAMPLE.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("document", with_examples(), ids=relative)
def test_examples_print_what_the_document_says(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    module = ModuleType("documented")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    text = document.read_text(encoding="utf-8")
    for example in EXAMPLE.finditer(text):
        code = compile(example[1], "net.py", "exec", dont_inherit=True)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, module.__dict__)
        line = text.count("\n", 0, example.start()) + 1
        assert printed.getvalue().strip() == (example[2] or "").strip(), f"{document.name}:{line}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_to_files(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


def test_layout_names_every_source_file_and_no_other() -> None:
    assert named_in_layout() == {relative(path) for path in source_files()}


def named_in_layout() -> set[str]:
    """Files in the first column of the tables, each below the heading of its folder."""
    names: set[str] = set()
    folder = ""
    for line in (ROOT / "docs" / "layout.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## `(.*)/`", line):
            folder = heading[1]
        if line.startswith("| `"):
            names |= {f"{folder}/{name}" for name in re.findall(r"`([^`]+)`", line.split("|")[1])}
    return names


def source_files() -> list[Path]:
    """Python and C files, without tests themselves and the `__init__.py` that only say what a folder is."""
    files = [
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".c", ".h")
    ]
    return [path for path in files if not path.name.startswith("test_") and not is_mere_marker(path)]


def is_mere_marker(path: Path) -> bool:
    return path.name == "__init__.py" and len(path.read_text(encoding="utf-8").splitlines()) < 3


@pytest.mark.parametrize("name", ["summary", "dump", "train", "run", "build", "verify", "bench"])
def test_every_command_is_documented_with_options_it_has(name: str) -> None:
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    shown = re.findall(rf"^\$ cnnc {name} ((?:.*\\\n)*.*)$", section[1], re.MULTILINE)
    used = {option for line in shown for option in re.findall(r"--[a-z-]+", line)}
    known = {option for parameter in cli.commands[name].params for option in parameter.opts}
    assert shown and used <= known
