"""All systems held to the vector instructions of one target, as on a machine that has no others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

HOST = "host"
LIMITS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "avx2": MappingProxyType(
            {
                "ONEDNN_MAX_CPU_ISA": "AVX2",
                "ATEN_CPU_CAPABILITY": "avx2",
                "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            }
        )
    }
)
"""By target, the variables that PyTorch and OpenVINO obey if they are set before those are loaded. ONNX
Runtime has none."""


def hold_to(target: str) -> None:
    """Hold the systems that are loaded from now on to a target of LIMITS; `host` is no limit."""
    os.environ.update(LIMITS.get(target, {}))
