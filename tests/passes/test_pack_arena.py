"""Packing: nothing that is live at once overlaps, and easy cases are packed as tightly as can be."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.ir.plan import ALIGNMENT, aligned
from cnnc.passes.pack_arena import Interval, pack, packed_bytes


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    first = draw(st.integers(0, 20))
    return Interval(first, first + draw(st.integers(0, 8)), draw(st.integers(1, 2000)))


def bound(given: list[Interval]) -> int:
    return max(
        (sum(aligned(i.nbytes) for i in given if i.first <= t <= i.last) for t in range(30)), default=0
    )


@given(st.lists(intervals(), max_size=25))
@settings(max_examples=100, deadline=None)
def test_nothing_live_at_once_overlaps(given: list[Interval]) -> None:
    offsets = pack(given, bound(given))
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    for (one, at), (other, there) in combinations(zip(given, offsets, strict=True), 2):
        if one.meets(other):
            assert at + one.nbytes <= there or there + other.nbytes <= at
    assert bound(given) <= packed_bytes(given, offsets) <= sum(aligned(i.nbytes) for i in given)


def test_a_gap_that_fits_is_used() -> None:
    given = [Interval(0, 9, 256), Interval(0, 4, 128), Interval(0, 9, 64), Interval(5, 9, 128)]
    assert packed_bytes(given, pack(given, bound(given))) == bound(given) == 448


def test_an_order_is_found_where_largest_first_fails() -> None:
    """A small long interval between large ones that follow each other."""
    given = [Interval(0, 1, 640), Interval(1, 2, 64), Interval(2, 3, 640), Interval(0, 3, 64)]
    assert packed_bytes(given, pack(given, bound(given))) == bound(given)


def test_nothing_needs_nothing() -> None:
    assert pack([], 0) == ()
    assert packed_bytes([], ()) == 0
