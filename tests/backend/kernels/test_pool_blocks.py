"""Blocks of cells: they cover the map once, and agree on what windows share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernels.pool_blocks import Block, each_block
from cnnc.backend.kernels.windows import Windows


class Unrolled(KernelBuilder):
    """Runs the bodies of loops for every iteration, now."""

    def __init__(self) -> None:
        super().__init__("blocks")
        self.loops: list[int] = []

    @contextmanager
    def once_or_loop(self, name: str, extent: int) -> Iterator[Affine]:
        self.loops.append(extent)
        yield affine(0)


def windows_along(kernel: int, stride: int, before: int, after: int, size: int) -> Windows:
    result = (size + before + after - kernel) // stride + 1
    return Windows((kernel, 1), (stride, 1), (before, 0, after, 0), (size, 1), (result, 1))


def blocks_of(windows: Windows, most: int) -> tuple[list[Block], list[int]]:
    """The first block of every run of blocks alike, and how many blocks each run has."""
    k, found = Unrolled(), list[Block]()
    each_block(k, windows, 0, most, found.append)
    return found, k.loops


@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    pads=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    size=st.sampled_from((1, 2, 7, 9, 17, 33)),
    most=st.integers(1, 5),
)
def test_places_are_those_of_the_windows(
    kernel: int, stride: int, pads: tuple[int, int], size: int, most: int
) -> None:
    before, after = pads
    assume(max(pads) < kernel <= size + before + after)
    windows = windows_along(kernel, stride, before, after, size)
    covered: list[int] = []
    known: dict[int, int] = {}
    for first, count in zip(*blocks_of(windows, most), strict=True):
        for number in range(count):
            start = first.start.constant + number * first.cells
            here = start * stride

            def on_map(places: tuple[int, ...], here: int = here) -> list[int]:
                return [here + p - before for p in places]

            assert set(on_map(first.waiting)) == {y for y in known if y >= here - before}
            assert not set(on_map(first.new)) & set(known)
            for window, taps in enumerate(first.taps):
                row = (start + window) * stride - before
                assert [row + t for t in taps] == [y for y in range(row, row + kernel) if 0 <= y < size]
                known.update({row + t: start + window for t in taps})
            covered += on_map(first.places)
            assert set(on_map(first.leaving)) == {
                y for y in known if y >= here + first.cells * stride - before
            }
    assert covered == list(range(size))
    assert len(set(known.values())) <= windows.result[0]


@pytest.mark.parametrize(("kernel", "stride", "before", "after"), [(3, 1, 1, 1), (3, 2, 0, 1), (2, 2, 0, 0)])
def test_blocks_inside_share_their_code(kernel: int, stride: int, before: int, after: int) -> None:
    _, loops = blocks_of(windows_along(kernel, stride, before, after, 112), 4)
    assert len(loops) <= 5 and max(loops) >= 12
