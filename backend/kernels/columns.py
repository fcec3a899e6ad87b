"""How a row of a result is cut into register tiles, and which pixels of a tile each tap can reach.

At the edges of a padded row some taps fall outside the source. Those pixels are left out when the
kernel is written, so nothing is padded and nothing computed in vain.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from cnnc.backend.kernels.contraction import Contraction
from cnnc.backend.kernels.tiles import split


@dataclass(frozen=True)
class Run:
    """`count` tiles of `pixels` columns, one behind the other from column `first`, that all read alike.

    `reach[s]` are the columns of a tile whose tap s lies inside the source.
    """

    first: int
    count: int
    pixels: int
    reach: tuple[tuple[int, ...], ...]

    @property
    def reaches_all(self) -> bool:
        return all(len(columns) == self.pixels for columns in self.reach)


def column_runs(shape: Contraction, most: int, multiple: int) -> tuple[Run, ...]:
    """The tiles of a row, of at most `most` columns each, alike neighbours joined to runs."""
    sizes = split(shape.result[1], most, multiple)
    starts = itertools.accumulate(sizes, initial=0)
    tiles = [Run(x, 1, size, _reach(shape, x, size)) for x, size in zip(starts, sizes, strict=False)]
    runs: list[Run] = []
    for tile in tiles:
        last = runs[-1] if runs else None
        if last and (last.pixels, last.reach) == (tile.pixels, tile.reach):
            runs[-1] = Run(last.first, last.count + 1, last.pixels, last.reach)
        else:
            runs.append(tile)
    return tuple(runs)


def _reach(shape: Contraction, start: int, size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(j for j in range(size) if 0 <= shape.source_index(1, start + j, s) < shape.source[1])
        for s in range(shape.kernel[1])
    )
