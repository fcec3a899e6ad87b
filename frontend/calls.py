"""The border between the user's code and the DSL: places every mistake at the user's own line.

Every public function of the DSL is decorated with `user_call`, which checks the names of its
options and gives an error that leaves it the user's `file:line` and the function's name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar

from cnnc.errors import CnncError, did_you_mean
from cnnc.ir.location import UNKNOWN, Location

P = ParamSpec("P")
T = TypeVar("T")


def user_call(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, whose errors read `lenet5.py:12: conv2d: unknown option 'strid'; ...`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        name = _shown_name(function, args)
        try:
            _check_arguments(signature, args, kwargs)
            return function(*args, **kwargs)
        except CnncError as error:
            if error.location is not None:
                raise
            message = error.message.removeprefix(f"{name}: ")
            raise type(error)(f"{name}: {message}", user_location()) from None

    return called


def user_location() -> Location:
    """The line of the innermost caller that is not cnnc itself."""
    frame = inspect.currentframe()
    while frame is not None and is_ours(frame):
        frame = frame.f_back
    return UNKNOWN if frame is None else Location(shown_path(frame.f_code.co_filename), frame.f_lineno)


def is_ours(frame: FrameType) -> bool:
    """Whether the frame runs code of the cnnc package, wherever its folders are installed."""
    return str(frame.f_globals.get("__name__", "")).split(".")[0] == "cnnc"


def shown_path(file: str) -> str:
    """A path as the user would write it: relative if below the working directory, else its last part."""
    path = Path(file)
    if not path.is_absolute():
        return file
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def _shown_name(function: Callable[..., object], args: tuple[object, ...]) -> str:
    """`conv2d`; `input` of a method; `Network` of its constructor; an activation's own name."""
    if function.__name__ == "__call__":
        return str(getattr(args[0], "name", "activation"))
    return function.__qualname__.removesuffix(".__init__").rpartition(".")[2]


def _check_arguments(
    signature: inspect.Signature, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    options = [name for name in signature.parameters if name != "self"]
    for name in kwargs:
        if name not in options:
            hint = did_you_mean(name, options) or f"; the options are {', '.join(options)}"
            raise CnncError(f"unknown option {name!r}{hint}")
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise CnncError(str(error)) from None
