"""How a row of a result is cut into register tiles, and which pixels of a tile each tap can reach.

At the edges of a padded row some taps fall outside the source. Those pixels are left out when the
kernel is written, so nothing is padded and nothing computed in vain.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from cnnc.backend.kernels.phases import Phase
from cnnc.backend.kernels.tiles import split


@dataclass(frozen=True)
class Run:
    """`count` tiles of `pixels` columns, one behind the other from column `first`, that all read alike.

    Columns are counted as the phase counts them. `reach[k]` are the columns of a tile whose tap k lies
    inside the source.
    """

    first: int
    count: int
    pixels: int
    reach: tuple[tuple[int, ...], ...]

    @property
    def whole_taps(self) -> range:
        """The taps that reach all columns; they stand together."""
        whole = [k for k, columns in enumerate(self.reach) if len(columns) == self.pixels]
        return range(whole[0], whole[-1] + 1) if whole else range(0)


def column_runs(phase: Phase, extent: int, most: int, multiple: int = 1) -> tuple[Run, ...]:
    """The tiles of a row of a phase over `extent` columns of the source, of at most `most` columns each and
    of multiples of `multiple`, alike neighbours joined to runs."""
    sizes = split(phase.count, most, multiple)
    starts = itertools.accumulate(sizes, initial=0)
    tiles = [Run(x, 1, size, _reach(phase, extent, x, size)) for x, size in zip(starts, sizes, strict=False)]
    runs: list[Run] = []
    for tile in tiles:
        last = runs[-1] if runs else None
        if last and (last.pixels, last.reach) == (tile.pixels, tile.reach):
            runs[-1] = Run(last.first, last.count + 1, last.pixels, last.reach)
        else:
            runs.append(tile)
    return tuple(runs)


def meeting_columns(run: Run, phase: Phase) -> dict[int, list[tuple[int, int]]]:
    """For each column of the source, counted from where column 0 of a tile begins to count, the pairs of
    a column of the tile and a tap that meet there."""
    meeting: dict[int, list[tuple[int, int]]] = {}
    for tap, columns in enumerate(run.reach):
        for j in columns:
            meeting.setdefault(phase.offset + j * phase.stride + tap * phase.shift, []).append((j, tap))
    return meeting


def _reach(phase: Phase, extent: int, start: int, size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(j for j in range(size) if 0 <= start_source + j * phase.stride < extent)
        for start_source in (
            phase.offset + start * phase.stride + tap * phase.shift for tap in range(phase.taps)
        )
    )
