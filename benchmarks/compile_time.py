"""How long cnnc takes from a network to a callable function, without a cache and from the cache, and how
much code comes of it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.report import Cell, Report
from benchmarks.rounds import Timing
from benchmarks.zoo import BY_NAME, Entry
from cnnc.backend import llvm
from cnnc.backend.cache import ObjectCache
from cnnc.compiler import load
from cnnc.executable import Request, executable
from cnnc.passes.choose_algorithms import NO_PREFERENCES
from cnnc.source import source_of

NETWORKS = ("lenet5", "resnet50")
COLD, CACHED = 3, 5
"""Repetitions; of the best and the median of them is told."""
STEP_BATCH = 8
"""Images of a training step where no other number is compared."""


def compile_time() -> Report:
    """Inference of one image and a training step of two networks, each time with a fresh cache."""
    load(_request(BY_NAME[NETWORKS[0]], False), 1, ObjectCache(None))  # LLVM starts once a process
    rows: list[tuple[Cell, ...]] = []
    figures: dict[str, float] = {}
    for entry in (BY_NAME[name] for name in NETWORKS):
        for train in (False, True):
            cold, cached, kernels, code = _measured(_request(entry, train))
            what = "training" if train else "inference"
            rows.append(
                (f"{entry.title}, {what}", cold.best_ms, cold.median_ms, cached.best_ms, kernels, code)
            )
            figures |= {
                f"{entry.name}/{what}/cold ms": cold.best_ms,
                f"{entry.name}/{what}/cached ms": cached.best_ms,
                f"{entry.name}/{what}/code kB": code,
            }
    headers = ("network", "cold, best ms", "cold, median ms", "cached, best ms", "kernels", "code kB")
    return Report("compile", "Compile time and size of the code", headers, tuple(rows), figures)


def _request(entry: Entry, train: bool) -> Request:
    source = source_of(entry.declare(entry.size))
    batch = (entry.step_batch or STEP_BATCH) if train else 1
    return Request(source, batch, train, llvm.host(), NO_PREFERENCES, strict=False)


def _measured(request: Request) -> tuple[Timing, Timing, float, float]:
    """The times without and from the cache, how many kernels there are, and their kilobytes as objects."""
    cold, cached = Timing(), Timing()
    for _ in range(COLD):
        with tempfile.TemporaryDirectory() as folder:
            cache = ObjectCache(Path(folder))
            cold.seconds.append(_seconds(request, cache))
            for _ in range(CACHED):
                cached.seconds.append(_seconds(request, cache))
    kernels = len(request.compiled().unit.kernels)
    size = sum(map(len, executable(request, ObjectCache(None)).objects))
    return cold, cached, float(kernels), size / 1e3


def _seconds(request: Request, cache: ObjectCache) -> float:
    start = time.perf_counter()
    load(request, 1, cache)
    return time.perf_counter() - start
