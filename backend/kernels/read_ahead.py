"""What a direct contraction asks memory for before it needs it, and when: decisions for direct.py.

Its tiles visit many pixels, a few channels of each, an order that processors foresee badly. So maps that no
cache holds are asked for: the source a tile ahead, and what the epilogue reads in one of three ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.contraction import Contraction
from cnnc.backend.kernels.region import Region

STRAIGHT_CHANNELS = 8
"""Up to so many channels the loop over them is unrolled whole, and over the columns of the filter that reach
a part of a tile too."""

LEAST_ITERATIONS = 16
"""Of the parallel nest, where blocks of maps are no part of it."""

LEAST_CHANNELS = 4 * LINE
"""With fewer a tile takes less time than what its epilogue reads takes to come from the third-level cache."""


@dataclass(frozen=True)
class ReadAhead:
    """The decisions for a contraction of `parts` parts of `tile_rows` rows, in blocks of `block` maps."""

    region: Region
    shape: Contraction
    tile_rows: int
    parts: int
    block: int

    @cached_property
    def is_streamed(self) -> bool:
        """Whether a pointwise source comes from memory: then its lines are asked for a tile ahead, or tiles
        would wait for every line; a wider window reads most of them again."""
        few = self.shape.channels <= STRAIGHT_CHANNELS
        is_large = self.region.anchor_tensor(0).type.nbytes > self.region.site.target.l2_bytes
        return self.shape.is_pointwise and self.shape.groups == 1 and not few and is_large

    @cached_property
    def is_asked_on_the_way(self) -> bool:
        """Whether what the epilogue reads from memory is asked for while channels are added up, some pixels
        at each LINE of them: asked for at once, it keeps the weights waiting, which come from a cache."""
        is_long, is_plain = self.shape.channels >= LEAST_CHANNELS, self.shape.groups == 1
        return is_long and is_plain and self.shape.is_pointwise and bool(self.region.large_maps)

    @cached_property
    def fetched(self) -> tuple[int, ...]:
        """The operands that an epilogue reads from memory, where it reads a few channels of every pixel at a
        time and their rows can wait in the second-level cache beside the weights."""
        shape, l2_bytes, large = self.shape, self.region.site.target.l2_bytes, self.region.large_maps
        row = 4 * self.tile_rows * shape.result[1] * shape.maps
        few_weights = 4 * shape.channels * shape.maps <= l2_bytes // 4
        few_maps = row * (len(large) + 1) <= l2_bytes // 2
        many_rows = shape.batch * self.parts >= LEAST_ITERATIONS
        is_cut = shape.is_pointwise and shape.groups == 1 and shape.maps > self.block
        suits = is_cut and few_weights and few_maps and many_rows and not self.is_asked_on_the_way
        return large if suits else ()

    @property
    def is_asked_at_once(self) -> bool:
        """Whether what the epilogue reads from memory is asked for when a tile begins."""
        return not self.fetched and not self.is_asked_on_the_way
