"""From object code to what the user asked for: a program, a shared or static library, an object.

Programs and shared libraries need a C compiler, static libraries `ar`; objects need neither. Every
library and object gets its header, NAME.h, beside it. All files are written whole or not at all.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnc.backend.header import c_config, c_header
from cnnc.backend.interface import Interface
from cnnc.errors import CnncError, UnsupportedError
from cnnc.files import reason, replaced, write_whole

RUNTIME = Path(__file__).resolve().parent / "runtime"
"""The C sources of the built programs."""

SHARED_SOURCES = ("args.c", "array.c", "error.c", "files.c", "json.c", "memory.c", "npy.c", "safetensors.c")
INFERENCE_SOURCES = (*SHARED_SOURCES, "main_inference.c")
TRAINING_SOURCES = (*SHARED_SOURCES, "dataset.c", "gzip.c", "idx.c", "inflate.c", "shuffle.c", "main_train.c")

C_FLAGS = ("-std=c11", "-O2", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections")
"""Contraction would fuse `v * scale + shift` into one rounding, where two are specified."""

LINUX_PROGRAM_FLAGS = ("-s", "-Wl,--gc-sections", "-Wl,-z,noexecstack")
LINUX_SHARED_FLAGS = ("-s", "-Wl,-z,noexecstack")


def find_cc() -> str | None:
    """The path of a C compiler: the first of cc, gcc and clang that is installed."""
    return next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)


def build_program(object_bytes: bytes, interface: Interface, path: str | Path, cc: str | None = None) -> None:
    """Link a program that reads and writes files (runtime/main_inference.c or main_train.c).

    Raises UnsupportedError without a C compiler or for a network that programs cannot serve, and
    CnncError when the file cannot be written.
    """
    compiler = _compiler(cc)
    config = c_config(interface)
    flags = LINUX_PROGRAM_FLAGS if sys.platform == "linux" else ()
    sources = [str(RUNTIME / source) for source in program_sources(interface)]
    with _scratch() as folder:
        object_path = _fill(folder, object_bytes, interface)
        write_whole(folder / "network.h", config)
        includes = (f"-I{folder}", f"-I{RUNTIME}")
        _link(compiler, [*C_FLAGS, *includes, *sources, object_path, *flags], folder, path)


def program_sources(interface: Interface) -> tuple[str, ...]:
    """The files of runtime/ that the program consists of."""
    return TRAINING_SOURCES if interface.train else INFERENCE_SOURCES


def build_shared(object_bytes: bytes, interface: Interface, path: str | Path, cc: str | None = None) -> None:
    """Link a shared library, and write its header beside it. Raises as build_program does."""
    compiler = _compiler(cc)
    soname = ("-Xlinker", "-soname", "-Xlinker", Path(path).name)
    flags = (*LINUX_SHARED_FLAGS, *soname) if sys.platform == "linux" else ()
    with _scratch() as folder:
        object_path = _fill(folder, object_bytes, interface)
        _link(compiler, ["-shared", object_path, *flags], folder, path)
    _write_header(interface, path)


def build_static(object_bytes: bytes, interface: Interface, path: str | Path) -> None:
    """Make a static library, and write its header beside it. Raises UnsupportedError without `ar`."""
    archiver = shutil.which("ar")
    if archiver is None:
        raise UnsupportedError("no archiver (ar) found: install one, or use --emit object, which needs none")
    with _scratch() as folder:
        object_path = _fill(folder, object_bytes, interface)
        library = folder / "library.a"
        _call([archiver, "rcs", str(library), object_path], path)
        _deliver(library, path)
    _write_header(interface, path)


def write_object(object_bytes: bytes, interface: Interface, path: str | Path) -> None:
    """Write the object, and its header beside it. Needs no tool."""
    write_whole(path, object_bytes)
    _write_header(interface, path)


def header_path(interface: Interface, path: str | Path) -> Path:
    """Where the header of the library or object at `path` goes."""
    return Path(path).with_name(f"{interface.name}.h")


def _write_header(interface: Interface, path: str | Path) -> None:
    write_whole(header_path(interface, path), c_header(interface))


def _compiler(cc: str | None) -> str:
    found = cc or find_cc()
    if found is None:
        raise UnsupportedError(
            "no C compiler (cc) found: install one, or use --emit object, llvm or asm, which need none"
        )
    return found


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the files between two steps."""
    try:
        with tempfile.TemporaryDirectory(prefix="cnnc-") as folder:
            yield Path(folder)
    except OSError as error:
        raise CnncError(f"cannot use the temporary folder: {reason(error)}") from None


def _fill(folder: Path, object_bytes: bytes, interface: Interface) -> str:
    """Put the object and its header into the folder; the object's path."""
    object_path = folder / f"{interface.name}.o"
    write_whole(object_path, object_bytes)
    (folder / "include").mkdir()
    write_whole(folder / "include" / f"{interface.name}.h", c_header(interface))
    return str(object_path)


def _link(compiler: str, arguments: list[str], folder: Path, path: str | Path) -> None:
    """One call of the compiler, which makes `path`."""
    linked = folder / "linked"
    _call([compiler, "-o", str(linked), *arguments, "-lm", "-pthread"], path)
    _deliver(linked, path)


def _deliver(made: Path, path: str | Path) -> None:
    """Copy a finished file to its place. A device keeps its own permissions."""
    with replaced(path) as part:
        shutil.copyfile(made, part)
        if part.is_file():
            part.chmod(made.stat().st_mode & 0o777)


def _call(command: list[str], path: str | Path) -> None:
    """Run a tool on the way to `path`; its complaint becomes one line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise CnncError(f"cannot run {command[0]}: {reason(error)}") from None
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    telling = next((line for line in lines if "error" in line or "undefined" in line), lines[-1])
    raise CnncError(f"cannot make {path}: {Path(command[0]).name} failed: {telling}")
