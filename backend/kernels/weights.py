"""How a contraction reads its weights: vectors of consecutive maps from one of three packings.

`Acdb{B}a` (convolution, dense product) and `Bcda{B}b` (input gradient) hold blocks of B maps, the
maps of one block lying together for each tap and channel; `acdb` holds the channels of each map
together, which an input gradient reads as its maps without any packing.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.backend.kernel.builder import BufferHandle, Coordinate, Vec
from cnnc.backend.kernels.contraction import Contraction
from cnnc.ir.layout import Layout


@dataclass(frozen=True)
class Weights:
    """The packed weights of a contraction inside a kernel."""

    handle: BufferHandle
    layout: Layout
    shape: Contraction
    lanes: int

    @property
    def is_packed(self) -> bool:
        return self.layout.block > 1 or not self.shape.flipped

    def load(
        self,
        group: Coordinate,
        block: Coordinate,
        size: int,
        tap: tuple[Coordinate, Coordinate],
        channel: Coordinate,
        vector: int,
        count: int,
    ) -> Vec:
        """Weights of `count` maps from the `vector`th of a block of `size` maps, for a place `tap` of the
        filter and a channel."""
        if self.shape.flipped:
            channel = channel + group * self.shape.channels
        else:
            block = block + group * (self.shape.maps // size if self.shape.groups > 1 else 0)
        start = vector * self.lanes
        if not self.is_packed:
            return self.handle.load((channel, *tap, block * size + start), self.lanes, count)
        if self.layout.block == 1:
            return self.handle.load((block, *tap, channel), 1)
        return self.handle.load((block, *tap, channel, start), self.lanes)
