"""Errors a user can cause, each one line: `file:line: what: values; what to do`.

Everything raised for a user's mistake derives from `CnncError`, so the command line prints one
line and exits, and a Python caller can catch one type. Any other exception is a defect of cnnc.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CnncError(Exception):
    """A mistake the user can mend. `location` is any object whose str is `file:line`, or None."""

    def __init__(self, message: str, location: object | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.location = location

    def __str__(self) -> str:
        if self.location is None or not str(self.location):
            return self.message
        return f"{self.location}: {self.message}"

    def at(self, location: object) -> CnncError:
        """The same error, placed at `location` unless it has a place already."""
        return self if self.location is not None else type(self)(self.message, location)


class ShapeError(CnncError):
    """Operands whose shapes or dtypes do not fit an op."""


class UnsupportedError(CnncError):
    """A legal request that no kernel, target or file format of cnnc serves."""


class FormatError(CnncError):
    """A file or text that is missing, truncated or malformed."""


class VerifyError(CnncError):
    """An IR object that breaks one of its level's rules."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: `; did you mean 'relu'?`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
