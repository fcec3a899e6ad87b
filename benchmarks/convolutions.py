"""Single convolutions as percent of the FMA peak measured in the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.agreement import agree
from benchmarks.fma_peak import loaded_peak
from benchmarks.report import Cell, Report
from benchmarks.rounds import Contestant, Timing, measure
from benchmarks.single_kernel import load_op
from cnnc.backend import llvm
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.types import Array, f32
from cnnc.ops.conv import Conv2d

LIMIT = 1e-4
"""Largest difference from float64, relative to the largest output."""


@dataclass(frozen=True)
class Layer:
    """A convolution of one image: its shapes and zero padding."""

    name: str
    channels: int
    maps: int
    size: int
    kernel: int

    @property
    def op(self) -> Conv2d:
        pad = self.kernel // 2
        return Conv2d(pad=(pad, pad, pad, pad))

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the image and of the weights."""
        square = (self.size, self.size)
        return (1, self.channels, *square), (self.maps, self.channels, self.kernel, self.kernel)


CONV3X3 = Layer("conv3x3", 64, 64, 56, 3)
CONV1X1 = Layer("conv1x1", 256, 64, 56, 1)


def convolution(layer: Layer, seconds: float) -> Report:
    """The layer's kernel for this machine, and for AVX2 where the machine is wider."""
    contestants, macs = [], []
    for target in targets():
        peak = loaded_peak(target)
        contestants += [Contestant(f"{target.name} FMA peak", peak.run), _ours(layer, target)]
        macs += [
            (peak.macs, peak.macs),
            (inside_macs(layer), layer.op.macs(*(f32(*s) for s in layer.shapes))),
        ]
    timings = measure(contestants, seconds)
    rows = _rows(contestants, timings, macs)
    title = (
        f"{layer.kernel}x{layer.kernel} convolution {layer.channels} -> {layer.maps} "
        f"on {layer.size}x{layer.size}, 1 thread"
    )
    headers = (
        "kernel",
        "best ms",
        "median ms",
        "GFLOP/s",
        "% of peak",
        "GFLOP/s with padding",
        "% with padding",
    )
    figures = {f"{t.name}_percent": float(rows[2 * i + 1][4] or 0) for i, t in enumerate(targets())}
    return Report(layer.name, title, headers, rows, figures)


def targets() -> tuple[Target, ...]:
    """This machine, and AVX2 if its vectors are wider."""
    host = llvm.host()
    return (host, TARGETS["avx2"]) if host.lanes > TARGETS["avx2"].lanes else (host,)


def inside_macs(layer: Layer) -> int:
    """Multiply-accumulates of the taps inside the image; the others multiply the zeros of the padding."""
    pad = layer.kernel // 2
    inside = sum(0 <= i + r - pad < layer.size for i in range(layer.size) for r in range(layer.kernel))
    return layer.channels * layer.maps * inside**2


def _ours(layer: Layer, target: Target) -> Contestant:
    """The kernel, once its result agrees with the reference in float64."""
    operands = _operands(layer)
    loaded = load_op(layer.op, operands, target)
    loaded.run()
    reference = layer.op.reference(*(a.astype(np.float64) for a in operands))
    agree(f"{layer.name} for {target.name}", {"y": loaded.results()[0]}, {"y": reference[0]}, LIMIT)
    return Contestant(f"{target.name} {layer.name}", loaded.run)


def _operands(layer: Layer) -> list[Array]:
    random = np.random.default_rng(0)
    return [random.standard_normal(shape).astype(np.float32) for shape in layer.shapes]


def _rows(
    contestants: Sequence[Contestant], timings: Sequence[Timing], macs: Sequence[tuple[int, int]]
) -> tuple[tuple[Cell, ...], ...]:
    """Each peak is followed by the kernel it bounds."""
    speeds = [
        tuple(2e-6 * count / t.best_ms for count in counts) for t, counts in zip(timings, macs, strict=True)
    ]
    rows: list[tuple[Cell, ...]] = []
    for number, (contestant, timing) in enumerate(zip(contestants, timings, strict=True)):
        peak = speeds[number - number % 2][0]
        inside, every = speeds[number]
        rows.append(
            (
                contestant.name,
                timing.best_ms,
                timing.median_ms,
                inside,
                100 * inside / peak,
                every,
                100 * every / peak,
            )
        )
    return tuple(rows)
