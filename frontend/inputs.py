"""InputSpec: what a network reads, and how byte pixels become its numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnc.ir.types import Array


@dataclass(frozen=True)
class InputSpec:
    """One input: `shape` without the batch axis; a uint8 pixel u is read as u * scale + shift."""

    name: str
    shape: tuple[int, ...]
    scale: float = 1.0
    shift: float = 0.0

    def table(self) -> Array:
        """The 256 float32 values of a byte; product and sum are each rounded to float32."""
        return np.arange(256, dtype=np.float32) * np.float32(self.scale) + np.float32(self.shift)
