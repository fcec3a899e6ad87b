"""Which rows of the filter the rows of a tile reach, and code that runs for some positions only.

Taps outside the source are skipped by the bounds of loops, so that padding costs neither memory nor FMAs.
The bounds are affine, as the proofs of bounds need them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernels.phases import Phase

SourceRows = Mapping[int, Affine]
"""For rows of a tile by their numbers: the rows of the source that they read."""

RowBody = Callable[[Affine, SourceRows], None]
"""What is done for a tap (its number along the rows of a phase) and the rows that it reaches."""


@contextmanager
def where_inside(k: KernelBuilder, position: Affine, extent: int) -> Iterator[Affine]:
    """Code that runs only where 0 <= position < extent. Yields the position, as the proofs know it inside.

    It is a loop of at most one iteration over a variable that is 0 then, and bounded by the position.
    """
    with k.loop("inside", (0, -position), (1, extent - position)) as zero:
        yield position + zero


def each_part(
    k: KernelBuilder,
    number: Affine,
    numbers: int,
    extent: int,
    size: int,
    body: Callable[[Affine, int], None],
) -> None:
    """`body(part, length)` for part `number` in 0..numbers of an `extent` cut into parts of `size`, the
    last of which may be shorter. Parts behind the end are left out."""
    whole, rest = divmod(extent, size)
    if whole >= numbers:
        body(number, size)
        return
    if whole:
        with where_inside(k, number, whole) as part:
            body(part, size)
    if rest and numbers == 1:
        body(number, rest)
    elif rest:
        with where_inside(k, number - whole, 1) as part:
            body(part + whole, rest)


def each_filter_row(
    k: KernelBuilder, phase: Phase, extent: int, first: Affine, rows: tuple[int, ...], body: RowBody
) -> None:
    """`body` for every tap of a phase and the rows `first + row`, row in `rows`, that it reaches inside a
    source of `extent` rows; rows that the same tap reaches come together."""
    starts = {row: affine(phase.source(first + row, 0)) for row in rows}
    if not phase.overhangs(extent):
        with k.once_or_loop("r", phase.taps) as tap:
            body(tap, {row: start + tap * phase.shift for row, start in starts.items()})
    elif phase.shift != 1:
        _each_tap(k, phase, extent, starts, body)
    elif (rows[-1] - rows[0]) * phase.stride <= extent:
        _together(k, phase, extent, starts, body)
    else:
        for row, start in starts.items():
            _together(k, phase, extent, {row: start}, body)


def _each_tap(k: KernelBuilder, phase: Phase, extent: int, starts: SourceRows, body: RowBody) -> None:
    """Dilated taps one by one, each where it is inside: the first of them has no affine number."""
    for tap in range(phase.taps):
        if not phase.starts_before(tap) and not phase.ends_behind(tap, extent):
            body(affine(tap), {row: start + tap * phase.shift for row, start in starts.items()})
            continue
        for row, start in starts.items():
            with where_inside(k, start + tap * phase.shift, extent) as source:
                body(affine(tap), {row: source})


def _together(k: KernelBuilder, phase: Phase, extent: int, starts: SourceRows, body: RowBody) -> None:
    """The taps that all rows reach; before these the ones of lower rows alone, and behind them the ones of
    upper rows. Of 3 taps and rows 0 and 1 at the upper edge: tap 0 for row 1, then taps 1 and 2 for both."""
    (_, top), *_, (_, bottom) = (*starts.items(), *starts.items())
    common = -top, extent - bottom
    *upper, lowest = starts.items()
    for row, start in (*upper[1:], lowest) if upper and phase.starts_before(0) else ():
        with k.loop("r", (0, -start), (phase.taps, extent - start, common[0])) as tap:
            body(tap, {row: start + tap})
    with k.loop("r", (0, common[0]), (phase.taps, common[1])) as tap:
        body(tap, {row: start + tap for row, start in starts.items()})
    for row, start in upper if phase.ends_behind(phase.taps - 1, extent) else ():
        with k.loop("r", (0, -start, common[1]), (phase.taps, extent - start)) as tap:
            body(tap, {row: start + tap})
