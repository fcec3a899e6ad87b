"""A roofline picture: each kernel's speed over its arithmetic intensity, under what the machine allows.

After Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (2009).
Matplotlib is an extra (`pip install 'cnnc[plot]'`).
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from cnnc.errors import UnsupportedError
from cnnc.files import replaced
from cnnc.layer_times import CallTime

STREAM_BYTES = 256 * 1024 * 1024
"""More than any cache holds."""


def memory_bandwidth() -> float:
    """Bytes a second that one thread reads from memory: the best of a few sums over a large array."""
    data = np.ones(STREAM_BYTES // 4, np.float32)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        data.max()
        best = min(best, time.perf_counter() - start)
    return STREAM_BYTES / best


def draw_roofline(
    path: str | Path, title: str, times: Sequence[CallTime], peak: float, bandwidth: float
) -> None:
    """Write the picture, in the format of the path's suffix. `peak` is FLOP/s, `bandwidth` bytes/s.

    Raises UnsupportedError without matplotlib, CnncError when the file cannot be written.
    """
    figure = _pyplot().figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    working = [t for t in times if t.macs]
    for name in dict.fromkeys(map(_name, working)):
        own = [t for t in working if _name(t) == name]
        speeds = [t.flops_per_second / 1e9 for t in own]
        axes.plot(list(map(_intensity, own)), speeds, "o", label=name, alpha=0.7)
    ends = [_intensity(t) for t in working] or [1.0]
    xs = np.geomspace(min(ends) / 2, max(ends) * 2, 100)
    axes.plot(xs, np.minimum(peak, bandwidth * xs) / 1e9, "k-", label="limit of the direct method")
    axes.set(xscale="log", yscale="log", title=title)
    axes.set(xlabel="FLOP per byte", ylabel="GFLOP/s, counted as the direct method's")
    axes.legend(fontsize="small")
    with replaced(path) as part:
        figure.savefig(part, format=Path(path).suffix.lstrip(".") or "png", dpi=120)


def _name(t: CallTime) -> str:
    return f"{t.op} {t.algorithm}".strip()


def _intensity(t: CallTime) -> float:
    return 2 * t.macs / t.nbytes


def _pyplot() -> ModuleType:
    try:
        return importlib.import_module("matplotlib.pyplot")  # an extra, wanted for this alone
    except ImportError:
        raise UnsupportedError("a picture needs matplotlib: pip install 'cnnc[plot]'") from None
