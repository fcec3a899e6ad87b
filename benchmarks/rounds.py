"""Timing by interleaved rounds: A, B, C, A, B, C, ... so that a slow spell of the machine meets everybody."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

SLICE_SECONDS = 0.05
"""How long a contestant runs before the next has its turn."""
LEAST_ROUNDS = 5
PAUSE_SECONDS = 0.01
"""Before each turn: the threads of the one before, which may spin for a while, fall asleep."""


@dataclass(frozen=True)
class Contestant:
    """Something to time: one call is one unit of work."""

    name: str
    call: Callable[[], object]


@dataclass
class Timing:
    """The times of single calls, in seconds."""

    seconds: list[float] = field(default_factory=list)

    @property
    def best_ms(self) -> float:
        return min(self.seconds) * 1e3

    @property
    def median_ms(self) -> float:
        return statistics.median(self.seconds) * 1e3


def measure(contestants: Sequence[Contestant], seconds: float) -> list[Timing]:
    """About `seconds` for each contestant, slice by slice in turn; at least LEAST_ROUNDS turns."""
    end = time.perf_counter() + seconds * len(contestants)
    rounds, timings = 0, [Timing() for _ in contestants]
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        while rounds < LEAST_ROUNDS or time.perf_counter() < end:
            rounds += 1
            for contestant, timing in zip(contestants, timings, strict=True):
                _slice(contestant.call, timing.seconds)
    finally:
        if was_collecting:
            gc.enable()
    return timings


def _slice(call: Callable[[], object], seconds: list[float]) -> None:
    """One turn. The first call finds the caches as the last contestant left them and does not count."""
    time.sleep(PAUSE_SECONDS)
    call()
    end = time.perf_counter() + SLICE_SECONDS
    now = 0.0
    while now < end:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        seconds.append(now - start)
