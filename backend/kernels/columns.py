"""How a row of a result is cut into register tiles, and which pixels of a tile each tap can reach.

At the edges of a padded row some taps fall outside the source. Those pixels are left out when the
kernel is written, so nothing is padded and nothing computed in vain.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cnnc.backend.kernels.phases import Phase
from cnnc.backend.kernels.tiles import split
from cnnc.backend.kernels.weight_grad_parts import CACHED
from cnnc.backend.target import Target

FEW_COLUMNS = 4
"""Of a tile over maps that come from memory, where lanes run along the channels: visited a few columns at a
time, all channels of each, they are read almost in the order of memory."""


def most_columns(target: Target, nbytes: int, fitting: int, stride: int = 1) -> int:
    """Of a tile of a depthwise kernel over maps of `nbytes`, where so many columns fit the registers."""
    is_in_memory = nbytes > CACHED * target.l2_bytes
    return min(fitting, FEW_COLUMNS * stride) if is_in_memory else fitting


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
    return tuple(run for (run,) in joint_runs((phase,), extent, most, multiple))


def joint_runs(
    phases: Sequence[Phase], extent: int, most: int, multiple: int = 1
) -> tuple[tuple[Run, ...], ...]:
    """The same for phases of equally many columns at a time: a run of each, all equally long."""
    sizes = split(phases[0].count, most, multiple)
    starts = itertools.accumulate(sizes, initial=0)
    tiles = [
        tuple(Run(x, 1, size, _reach(phase, extent, x, size)) for phase in phases)
        for x, size in zip(starts, sizes, strict=False)
    ]
    joint: list[tuple[Run, ...]] = []
    for _, alike in itertools.groupby(tiles, key=lambda tile: [(run.pixels, run.reach) for run in tile]):
        first, *others = alike
        joint.append(tuple(replace(run, count=1 + len(others)) for run in first))
    return tuple(joint)


def side_by_side(phases: Sequence[Phase]) -> list[tuple[Phase, ...]]:
    """Phases of equally many columns together: their results, side by side, are then written in the order of
    memory."""
    return [tuple(equal) for _, equal in itertools.groupby(phases, key=lambda phase: phase.count)]


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
