"""The FMA peak of this core as a contestant: the ceiling of every kernel, measured beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.single_kernel import aligned, load_kernel
from cnnc.backend.kernels.fma_peak import fma_peak
from cnnc.backend.target import Target


@dataclass(frozen=True)
class Peak:
    """`run` does `macs` multiply-accumulates."""

    run: Callable[[], None]
    macs: int


def loaded_peak(target: Target) -> Peak:
    """The peak's kernel, ready to run."""
    peak = fma_peak(target)
    factors = aligned((2, target.lanes))
    factors[...] = 0.5  # zeros would draw less power than real work, and let the clock rise
    run = load_kernel(peak.kernel, target, [factors, aligned((peak.chains, target.lanes))])
    return Peak(run, peak.macs)
