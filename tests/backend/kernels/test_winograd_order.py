"""The order of tiles in a block: each has a place of its own, and each point finds the tiles that need it."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from cnnc.backend.kernel.ir import affine
from cnnc.backend.kernels.runs import Axis, Run, runs
from cnnc.backend.kernels.winograd_order import Order
from cnnc.backend.kernels.winograd_tiles import Blocking, blockings, result_axes
from cnnc.ops.winograd import Tiling

KINDS = ((1, 3, 1), (2, 3, 1), (4, 3, 1), (5, 3, 1), (2, 5, 1), (4, 3, 2))
"""Tiles, taps and strides."""

kinds = st.sampled_from(KINDS)


@st.composite
def orders(draw: st.DrawFn) -> Order:
    tile, kernel, stride = zip(draw(kinds), draw(kinds), strict=True)
    tiling = Tiling(tile, kernel, stride, draw(st.tuples(*[st.integers(1, 17)] * 2)))
    counts = (draw(st.integers(1, 4)), *tiling.counts)
    return Order(tiling, draw(st.sampled_from(list(blockings(counts, 64)))))


def positions(order: Order) -> dict[tuple[int, int, int], int]:
    """Where the tiles of the first block lie."""
    axes, found = result_axes(order.tiling), {}
    images, rows, columns = order.blocking.sizes
    down, across = (runs(axis, size) for axis, size in zip(axes, (rows, columns), strict=True))
    for image, row, column in product(range(images), down, across):
        tiles = product(*(range(run.first, run.first + run.count) for run in (row, column)))
        for y, x in tiles:
            place = affine(image), affine(y), affine(x)
            at = order.position(place, (affine(0),) * 3, axes, (row, column))
            found[image, y, x] = at.constant
    return found


@given(order=orders())
def test_every_tile_of_a_block_has_a_position(order: Order) -> None:
    assert sorted(positions(order).values()) == list(range(order.blocking.tiles))


@given(order=orders())
def test_each_point_takes_the_tiles_that_need_it(order: Order) -> None:
    """A tile needs the points of its own algorithm along rows and columns, which are the first; what else it
    takes is known to be unneeded."""
    axes, taken, wanted = result_axes(order.tiling), set(), set()
    for stretch in order.stretches:
        taken |= {(i, j, at) for i in stretch.rows for j in stretch.columns for at in stretch.tiles}
    for (_, y, x), at in positions(order).items():
        rows, columns = algorithms = order.algorithms(axes, (run_of(axes[0], y), run_of(axes[1], x)))
        needed = set(product(range(rows.points), range(columns.points)))
        unneeded = set(order.unneeded(algorithms))
        assert not needed & unneeded
        wanted |= {(*point, at) for point in needed | unneeded}
    assert taken == wanted
    assert order.products == len(wanted)


def run_of(axis: Axis, tile: int) -> Run:
    return next(run for run in runs(axis, 64) if run.first <= tile < run.first + run.count)


def test_seven_by_seven() -> None:
    """Four tiles of 4x4 with 36, 30, 30 and 25 products."""
    whole = Order(Tiling((4, 4), (3, 3), (1, 1), (7, 7)), Blocking((8, 2, 2), (8, 2, 2)))
    assert whole.products == 8 * (36 + 30 + 30 + 25)
    assert [(s.rows, s.columns, s.tiles) for s in whole.stretches] == [
        (range(5), range(5), range(32)),
        (range(5), range(5, 6), range(8, 24)),
        (range(5, 6), range(5), range(16)),
        (range(5, 6), range(5, 6), range(8, 16)),
    ]


def test_parted_images_and_whole_tiles_are_not_cut() -> None:
    parted = Order(Tiling((4, 4), (3, 3), (1, 1), (7, 7)), Blocking((8, 2, 2), (1, 1, 2)))
    whole = Order(Tiling((4, 4), (3, 3), (1, 1), (8, 8)), Blocking((8, 2, 2), (8, 2, 2)))
    assert parted.products == 36 * 2 and len(parted.stretches) == 1
    assert whole.products == 36 * 32 and len(whole.stretches) == 1
