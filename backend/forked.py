"""Work spread over processes: LLVM compiles one module at a time in a process, so several compile several.

`forked_map` needs nothing from the items or the function: children are copies of this process, and send
back their results. Where the system cannot fork, the work is done here.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def forked_map(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """`function` of each item, in order; the items are dealt out in turn, so put the largest first.

    Raises whatever the function raises for the first item it fails at.
    """
    workers = min(workers, len(items))
    if workers < 2 or not hasattr(os, "fork"):
        return [function(item) for item in items]
    pipes = [_start(function, items[number::workers]) for number in range(1, workers)]
    own = _attempt(function, items[::workers])
    parts: list[list[Any]] = [own, *(_finish(*pipe) for pipe in pipes)]
    results: list[Result] = []
    for index in range(len(items)):
        result = parts[index % workers][index // workers]
        if isinstance(result, _Failure):
            raise result.error
        results.append(result)
    return results


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Failure:
    """Stands for the result of an item at which the function raised."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _attempt(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result | _Failure]:
    results: list[Result | _Failure] = []
    for item in items:
        try:
            results.append(function(item))
        except Exception as error:  # whatever it is, it is raised again where the result is asked for
            results.append(_Failure(error))
    return results


def _start(function: Callable[[Item], Result], items: Sequence[Item]) -> tuple[int, int]:
    """Start a child that works on the items; its process id and the end of the pipe to read from."""
    source, sink = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.close(sink)
        return child, source
    try:
        os.close(source)
        with os.fdopen(sink, "wb") as stream:
            pickle.dump(_attempt(function, items), stream)
    finally:
        os._exit(0)  # nothing that the parent registered may run here


def _finish(child: int, source: int) -> list[Any]:
    """What the child sent. Raises ChildProcessError if it died before."""
    with os.fdopen(source, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    if not data:
        raise ChildProcessError("a process that compiled kernels ended without a result")
    results: list[Any] = pickle.loads(data)
    return results
