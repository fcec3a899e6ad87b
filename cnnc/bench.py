"""Times compiled networks and the machine's peak: the measurements behind `cnnc bench`."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnnc.backend.cache import ObjectCache, default_directory
from cnnc.backend.emit import emit_kernel, kernel_symbol
from cnnc.backend.kernels.fma_peak import fma_peak
from cnnc.backend.llvm import CodeGenerator, Jit
from cnnc.backend.target import Target
from cnnc.bound import random_entry
from cnnc.native import Code, Native, address
from cnnc.passes.eliminate_dead_code import EliminateDeadCode
from cnnc.passes.set_batch import SetBatch
from cnnc.summary import graph_macs, stage_graph
from cnnc.units import CompiledUnit

PEAK_SECONDS = 0.2


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, the best and the median of `calls`."""

    best: float
    median: float
    calls: int


@dataclass(frozen=True)
class Benchmark:
    """`flops` counts two for each multiply-accumulate of a run or step; `peak` is in FLOP/s on one thread."""

    name: str
    batch: int
    threads: int
    train: bool
    target: str
    timing: Timing
    flops: int
    peak: float

    @property
    def images_per_second(self) -> float:
        return self.batch / self.timing.best

    @property
    def flops_per_second(self) -> float:
        return self.flops / self.timing.best

    @property
    def share_of_peak(self) -> float:
        """Of the peak of all threads together."""
        return self.flops_per_second / (self.peak * self.threads)


def benchmark(compiled: CompiledUnit, threads: int, seconds: float) -> Benchmark:
    """Time a run or a training step for about that many seconds, then the machine's peak."""
    code = Code.of(compiled.unit, compiled.workspace_bytes, ObjectCache(default_directory()))
    native, train, target = Native(code, threads), compiled.train, compiled.unit.target
    stage = EliminateDeadCode.name if train else SetBatch.name
    return Benchmark(
        name=compiled.source.name,
        batch=compiled.batch,
        threads=threads,
        train=train,
        target=target.name,
        timing=measure(random_entry(compiled, native, "step" if train else "run"), seconds),
        flops=2 * graph_macs(stage_graph(compiled.main, stage)) * compiled.batch // compiled.microbatch,
        peak=measured_peak(target),
    )


def measure(call: Callable[[], object], seconds: float) -> Timing:
    """Call again and again for about that many seconds, after a first call that is not counted."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return Timing(min(times), statistics.median(times), len(times))


def measured_peak(target: Target) -> float:
    """FLOP/s of one thread whose registers alone are busy."""
    peak = fma_peak(target)
    code = Jit(target, [CodeGenerator(target).object_code(emit_kernel(peak.kernel, target))])
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p)(
        code.address(kernel_symbol(peak.kernel))
    )
    factors = np.full((2, target.lanes), 0.5, np.float32)  # zeros would draw less power, and raise the clock
    sums = np.zeros((peak.chains, target.lanes), np.float32)
    timing = measure(lambda: function(address(factors), address(sums), 0, 1, 0, None), PEAK_SECONDS)
    return 2 * peak.macs / timing.best
