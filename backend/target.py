"""Targets: what a machine has, as data. Register tiles, vector widths and fork decisions come from here.

`host()` asks LLVM about this machine; `TARGETS` are the named ones for building elsewhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from cnnc.errors import CnncError, UnsupportedError

COMMON_THREADS = 4
"""What code suits that may run on any number of threads."""


@dataclass(frozen=True)
class Target:
    """A machine. `cpu` and `features` are LLVM's words, `features` what a CPU must have to run the code.

    `lanes` is float32 elements of a vector register, `registers` how many there are, `fma_units`
    vector FMAs started a cycle, `fma_latency` cycles until a result can be used. Cache sizes in bytes,
    `memory_bytes_per_cycle` what one core streams from memory in a cycle.
    A result larger than `kept_results` second-level caches is found in no cache when it is read.
    `fork_flops` is the least work for which waking the other threads pays, `threads` how many are expected
    to share it: kernels divide their work to suit so many. Any number gives the same bits.
    """

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    lanes: int
    registers: int
    has_fma: bool = True
    has_round: bool = True
    folds_broadcast: bool = False
    masks: bool = False
    fma_units: int = 2
    fma_latency: int = 4
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    memory_bytes_per_cycle: float = 7.0
    kept_results: int = 8
    fork_flops: int = 100_000
    threads: int = COMMON_THREADS

    @property
    def is_wide(self) -> bool:
        """Whether more than 64 bytes of vectors are multiplied a cycle."""
        return self.lanes * self.fma_units > 16

    @property
    def vector_cycles(self) -> float:
        """How much longer operations on vectors take than where two are started a cycle."""
        return 2 / self.fma_units

    @property
    def feature_text(self) -> str:
        """LLVM's attribute string, `+avx2,+fma`."""
        return ",".join(f"+{feature}" for feature in self.features)

    def suited_to(self, threads: int = COMMON_THREADS) -> Target:
        """The same machine, its code divided to suit so many threads. Raises CnncError for a wrong number."""
        check_threads(threads)
        return replace(self, threads=threads)


def check_threads(threads: int) -> None:
    """Raises CnncError for what is no number of threads."""
    if not isinstance(threads, int) or threads < 1:
        raise CnncError(f"threads must be a positive whole number, not {threads!r}")


_LINUX_X86 = "x86_64-unknown-linux-gnu"
_LINUX_ARM = "aarch64-unknown-linux-gnu"
_AVX2 = ("avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "popcnt")
_AVX512 = Target(
    "avx512",
    _LINUX_X86,
    "x86-64-v4",
    (*_AVX2, "avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512cd"),
    lanes=16,
    registers=32,
    folds_broadcast=True,
    masks=True,
    l1_bytes=48 * 1024,
    l2_bytes=1024 * 1024,
)

TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "x86-64": Target(
            "x86-64", _LINUX_X86, "x86-64", ("sse2",), lanes=4, registers=16, has_fma=False, has_round=False
        ),
        "avx2": Target("avx2", _LINUX_X86, "x86-64-v3", _AVX2, lanes=8, registers=16),
        "avx512": _AVX512,
        "avx512-single": replace(
            _AVX512, name="avx512-single", fma_units=1, l1_bytes=32 * 1024, kept_results=1
        ),
        "arm64": Target("arm64", _LINUX_ARM, "generic", ("neon",), lanes=4, registers=32),
    }
)
"""Targets by the name `--target` takes. `avx512-single` starts one vector FMA a cycle, `avx512` two."""

SINGLE_FMA = frozenset({"znver4", "cannonlake", "icelake-client", "rocketlake", "tigerlake"})
"""CPUs in LLVM's words whose AVX-512 units are as wide as two of AVX2 together."""


def named_target(name: str, host_target: Target) -> Target:
    """The target of that name, `host` being the given one. Raises UnsupportedError on another name."""
    if name == "host":
        return host_target
    if name in TARGETS:
        return TARGETS[name]
    known = ["host", *TARGETS]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnsupportedError(f"unknown target {name!r}{hint} (known: {', '.join(known)})")


def match_host(triple: str, features: Mapping[str, bool], cpu: str = "") -> Target:
    """The widest named target that a machine of this LLVM triple, these features and this CPU runs."""
    if triple.startswith(("aarch64", "arm64")):
        return replace(TARGETS["arm64"], triple=triple)
    if not triple.startswith("x86_64"):
        raise UnsupportedError(f"no kernels for {triple}; the targets are {', '.join(TARGETS)}")
    fitting = [
        t for t in TARGETS.values() if t.triple == _LINUX_X86 and all(features.get(f) for f in t.features)
    ]
    units = 1 if cpu in SINGLE_FMA else 2
    widest = max(fitting, key=lambda t: (t.lanes, t.fma_units == units), default=TARGETS["x86-64"])
    return replace(widest, triple=triple)
