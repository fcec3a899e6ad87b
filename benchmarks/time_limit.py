"""A limit for work that may take minutes, such as PyTorch's compiler."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cnnc.errors import CnncError

INSIST_SECONDS = 1.0
"""The limit is told again after so long, for code may swallow the first exception."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises CnncError in the block once `seconds` have passed. In the main thread of Unix systems only;
    elsewhere there is no limit."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(number: int, frame: FrameType | None) -> None:
        raise CnncError(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds, INSIST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
