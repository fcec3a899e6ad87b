"""The FMA peak of this core: independent chains of FMAs that touch no memory, the ceiling of every kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.single_kernel import aligned, load_kernel
from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Access, Kernel
from cnnc.backend.target import Target

STEPS = 20_000


@dataclass(frozen=True)
class Peak:
    """`run` does `macs` multiply-accumulates."""

    run: Callable[[], None]
    macs: int


def fma_peak(target: Target) -> Peak:
    """Three quarters of the registers are chains: more than latency times units asks for, and none spills."""
    chains = target.registers * 3 // 4
    kernel = peak_kernel(target.lanes, chains)
    factors = aligned((2, target.lanes))
    factors[...] = 0.5  # zeros would draw less power than real work, and let the clock rise
    run = load_kernel(kernel, target, [factors, aligned((chains, target.lanes))])
    return Peak(run, target.lanes * chains * STEPS)


def peak_kernel(lanes: int, chains: int) -> Kernel:
    """acc[i] = fma(a, b, acc[i]), STEPS times."""
    k = KernelBuilder("fma_peak")
    factors = k.buffer("factors", (2, lanes), Access.READ)
    sums = k.buffer("sums", (chains, lanes), Access.WRITE)
    a, b = (factors.load((i, 0), lanes) for i in range(2))
    acc = k.register("acc", lanes, (chains,))
    with k.loop("step", 0, STEPS):
        for i in range(chains):
            acc[(i,)] = k.fma(a, b, acc[(i,)])
    for i in range(chains):
        sums.store((i, 0), acc[(i,)])
    return k.build()
