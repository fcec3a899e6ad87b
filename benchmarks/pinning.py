"""Every thread of this process on the same few cores while contestants are timed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
THREADS = Path("/proc/self/task")


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Let all threads there are run on as many cores as `threads` says, and no others. Linux only;
    elsewhere nothing is done."""
    if not hasattr(os, "sched_setaffinity") or not THREADS.is_dir():
        yield
        return
    every = os.sched_getaffinity(0)
    _allow(set(distinct_cores_first(every)[:threads]))
    try:
        yield
    finally:
        _allow(every)


def distinct_cores_first(cpus: Collection[int]) -> list[int]:
    """The CPUs, of each core one before any core's second."""
    seen: dict[tuple[str, ...], int] = {}
    turns = {}
    for cpu in sorted(cpus):
        core = _core(cpu)
        turns[cpu] = seen.get(core, 0)
        seen[core] = turns[cpu] + 1
    return sorted(turns, key=lambda cpu: (turns[cpu], cpu))


def _core(cpu: int) -> tuple[str, ...]:
    """What CPUs of one core have in common."""
    files = [CPUS / f"cpu{cpu}" / "topology" / name for name in ("physical_package_id", "core_id")]
    if not all(file.is_file() for file in files):
        return (str(cpu),)
    return tuple(file.read_text().strip() for file in files)


def _allow(cpus: set[int]) -> None:
    for thread in THREADS.iterdir():
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(int(thread.name), cpus)
