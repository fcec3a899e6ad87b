"""How long cnnc takes from a network to a callable function, without a cache and from the cache."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.report import Report
from benchmarks.rounds import Timing
from benchmarks.zoo import BY_NAME
from cnnc.backend import llvm
from cnnc.backend.cache import ObjectCache
from cnnc.native import Code, Native
from cnnc.source import Source, source_of
from cnnc.units import CompiledUnit, inference_unit, training_unit

REPEATS = 3
NETWORK, BATCH = "lenet5", 64


def compile_time() -> Report:
    """LeNet-5 for inference of one image and for training, each REPEATS times with a fresh cache."""
    source = source_of(BY_NAME[NETWORK].declare(BY_NAME[NETWORK].size))
    _load(inference_unit(source, 1, llvm.host()), ObjectCache(None))  # LLVM starts once a process
    rows = []
    for name, train in (("inference", False), ("training", True)):
        cold, cached = Timing(), Timing()
        for _ in range(REPEATS):
            with tempfile.TemporaryDirectory() as folder:
                cache = ObjectCache(Path(folder))
                cold.seconds.append(_seconds(source, train, cache))
                cached.seconds.append(_seconds(source, train, cache))
        kernels = float(len(_unit(source, train).unit.kernels))
        for state, timing in (("cold", cold), ("cached", cached)):
            rows.append((f"{name}, {state}", timing.best_ms, timing.median_ms, kernels))
    headers = ("LeNet-5", "best ms", "median ms", "kernels")
    figures = {f"{str(name).replace(', ', '_')}_ms": best for name, best, _, _ in rows}
    return Report("compile", "Compile time", headers, tuple(rows), figures)


def _seconds(source: Source, train: bool, cache: ObjectCache) -> float:
    start = time.perf_counter()
    _load(_unit(source, train), cache)
    return time.perf_counter() - start


def _unit(source: Source, train: bool) -> CompiledUnit:
    return training_unit(source, BATCH, llvm.host()) if train else inference_unit(source, 1, llvm.host())


def _load(compiled: CompiledUnit, cache: ObjectCache) -> Native:
    return Native(Code.of(compiled.unit, compiled.workspace_bytes, cache), 1)
