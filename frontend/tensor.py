"""Tensor: what a layer call returns and the next one takes; a value of the growing graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnc.ir.graph import Value

if TYPE_CHECKING:
    from cnnc.frontend.network import Network


@dataclass(frozen=True, eq=False)
class Tensor:
    """One value of a network under construction, at batch 1."""

    value: Value
    network: Network

    @property
    def shape(self) -> tuple[int, ...]:
        """Batch (1) first: (1, C, H, W) or (1, features)."""
        return self.value.type.shape

    def __repr__(self) -> str:
        return f"Tensor({self.value.type} of {self.network.name})"
