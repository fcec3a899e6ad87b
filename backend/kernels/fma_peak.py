"""The kernel that measures the FMA peak: independent chains of FMAs that touch no memory."""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.check import check_kernel
from cnnc.backend.kernel.ir import Access, Kernel
from cnnc.backend.target import Target

STEPS = 20_000


@dataclass(frozen=True)
class FmaPeak:
    """A kernel of (factors [2, lanes], sums [chains, lanes]) that does `macs` multiply-accumulates."""

    kernel: Kernel
    chains: int
    macs: int


def fma_peak(target: Target) -> FmaPeak:
    """acc = a * b + acc in every chain. Three quarters of the registers are chains: more than latency
    times units asks for, and none spills."""
    lanes, chains = target.lanes, target.registers * 3 // 4
    k = KernelBuilder("fma_peak")
    factors = k.buffer("factors", (2, lanes), Access.READ)
    sums = k.buffer("sums", (chains, lanes), Access.WRITE)
    a, b = (factors.load((row, 0), lanes) for row in range(2))
    acc = k.register("acc", lanes, (chains,))
    with k.loop("step", 0, STEPS):
        for chain in range(chains):
            acc[(chain,)] = k.fma(a, b, acc[(chain,)])
    for chain in range(chains):
        sums.store((chain, 0), acc[(chain,)])
    kernel = k.build()
    check_kernel(kernel)
    return FmaPeak(kernel, chains, lanes * chains * STEPS)
