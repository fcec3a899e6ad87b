"""Files written whole or not at all. Everything cnnc writes goes through here."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cnnc.errors import CnncError


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A path beside `path` that takes its name when the block ends well and is removed when it does not.

    For tools that write a file themselves, such as a linker. A device such as /dev/stdout is given
    as it is, for it must not be replaced. Raises CnncError when the file cannot be written.
    """
    given = Path(path)
    if given.is_dir():
        raise CnncError(f"cannot write {path}: it is a directory")
    is_device = given.exists() and not given.is_file()
    final = given if is_device else Path(os.path.realpath(given))
    part = final if is_device else final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        if not is_device:
            os.replace(part, final)
    except OSError as error:
        raise CnncError(f"cannot write {path}: {reason(error)}") from None
    finally:
        if not is_device:
            part.unlink(missing_ok=True)


def write_whole(path: str | Path, content: bytes | str | Callable[[IO[bytes]], object]) -> None:
    """Write bytes, text (as UTF-8) or what a function writes to the open file it is given.

    Raises CnncError when the file cannot be written; then `path` holds what it held before.
    """
    with replaced(path) as part, open(part, "wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)


def reason(error: OSError) -> str:
    """What the operating system says, in a sentence's case: `no space left on device`."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
