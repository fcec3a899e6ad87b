"""Blocks of cells along an axis of a map under pooling windows, for max_pool_sweep.py.

A cell is as long as the windows' stride, and each window begins with a cell. Windows that reach beyond their
block share places with blocks behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernels.tiles import split
from cnnc.backend.kernels.windows import Windows


@dataclass(frozen=True)
class Block:
    """`cells` of `step` places, from the cell number `start` on. Places are counted from its first one, and
    only those on the map are meant.

    `taps` are for each window that begins here its own places, counted from its first one. `places` are the
    cells' places. `waiting` are those that windows in front reach, and `leaving` those behind the block that
    its windows, or windows in front, reach.
    """

    start: Affine
    cells: int
    step: int
    taps: tuple[range, ...]
    places: tuple[int, ...]
    waiting: tuple[int, ...]
    leaving: tuple[int, ...]

    @property
    def new(self) -> tuple[int, ...]:
        """The places that only windows from this block on reach."""
        reached = {number * self.step + t for number, taps in enumerate(self.taps) for t in taps}
        return tuple(sorted(reached.difference(self.waiting)))


def each_block(
    k: KernelBuilder, windows: Windows, axis: int, most: int, body: Callable[[Block], None]
) -> None:
    """`body` for blocks of up to `most` cells that cover the rows (axis 0) or columns (1), in order. Blocks
    alike, such as those whose windows all lie on the map, share their code."""
    cells = -(-(windows.size[axis] + windows.pad[axis]) // windows.stride[axis])
    starts = itertools.accumulate(split(cells, most), initial=0)
    blocks = [_block(windows, axis, start, stop) for start, stop in itertools.pairwise(starts)]
    for first, run in itertools.groupby(blocks, lambda block: replace(block, start=affine(0))):
        alike = list(run)
        with k.once_or_loop("block", len(alike)) as number:
            body(replace(first, start=alike[0].start + number * first.cells))


def _block(windows: Windows, axis: int, start: int, stop: int) -> Block:
    """The cells start..stop."""
    step, wide, count = windows.stride[axis], windows.kernel[axis], windows.result[axis]
    top, end, first = windows.pad[axis], windows.pad[axis] + windows.size[axis], start * step

    def places(low: int, high: int) -> tuple[int, ...]:
        return tuple(place - first for place in range(max(low, top), min(high, end)))

    def reached(cell: int) -> tuple[int, ...]:
        """By windows in front of a cell, from there on."""
        last = min(cell, count) - 1
        return places(cell * step, last * step + wide) if last >= 0 else ()

    return Block(
        affine(start),
        stop - start,
        step,
        tuple(windows.taps(number, axis) for number in range(start, min(stop, count))),
        places(first, stop * step),
        reached(start),
        reached(stop),
    )
