"""Tiles along an axis, in runs of tiles that reach equally far.

Tiles at the border of a map reach outside. Neighbouring tiles that reach the same elements make a run, for
which a kernel writes one loop, over those of them that are in its block of tiles.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, affine


@dataclass(frozen=True)
class Axis:
    """Tiles along an axis: tile i takes `extent` of its `size` elements, from `step` * i - `origin` on."""

    tiles: int
    step: int
    origin: int
    extent: int
    size: int

    def inside(self, tile: int) -> tuple[int, ...]:
        """Offsets in a tile that lie in the map; none in tiles behind the last."""
        first = tile * self.step - self.origin
        return tuple(i for i in range(self.extent) if tile < self.tiles and 0 <= first + i < self.size)

    def ends_with(self, run: Run) -> bool:
        """Whether the last of a run of tiles is the last of all."""
        return run.first + run.count == self.tiles


@dataclass(frozen=True)
class Run:
    """`count` tiles from `first` on that all reach the offsets `inside`."""

    first: int
    count: int
    inside: tuple[int, ...]


def runs(axis: Axis, tiles: int) -> tuple[Run, ...]:
    """The runs of the first `tiles` tiles, which may be more than the axis has."""
    found: list[Run] = []
    for inside, group in groupby(range(tiles), axis.inside):
        members = list(group)
        found.append(Run(members[0], len(members), inside))
    return tuple(found)


def loop_over(
    k: KernelBuilder, name: str, run: Run, block: Affine, size: int
) -> AbstractContextManager[Affine]:
    """A loop over the tiles of a run that are in a block of `size`."""
    if not block.terms:
        return k.loop(name, run.first, run.first + run.count)
    return k.loop(
        name, (affine(run.first), block * size), (affine(run.first + run.count), block * size + size)
    )
