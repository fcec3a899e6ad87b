"""Processes that work for this one: LLVM compiles one module at a time in a process, so several compile
several, while this one makes more.

Where there can be no such processes, or is one processor only, the work is done here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

MOST_WORKERS = 8
"""As many as the process that makes their work keeps busy."""


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_processes(count: int) -> Iterator[Executor]:
    """An executor with so many processes, MOST_WORKERS at most; with less than two the work is done here.

    They are copies of this process, made when the first work is handed in. At the end, and after an error,
    what was not begun is dropped.
    """
    executor = _executor(min(count, MOST_WORKERS))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


class _Here(Executor):
    """Does what is handed in at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(function(*args, **kwargs))
        except Exception as error:  # whatever it is, it is raised again where the result is asked for
            done.set_exception(error)
        return done


def _executor(count: int) -> Executor:
    is_allowed = not multiprocessing.current_process().daemon  # one of a pool may have none of its own
    if count < 2 or not is_allowed or "fork" not in multiprocessing.get_all_start_methods():
        return _Here()
    try:
        return ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _begin)
    except (ImportError, NotImplementedError, OSError):  # a system without semaphores
        return _Here()


def _begin() -> None:
    """What a worker does first: it leaves interrupts to its parent, and sees to it that it does not outlive
    it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nothing that the parent registered may run here
