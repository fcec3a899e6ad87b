"""Blocks of tiles cover every tile once."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from cnnc.backend.kernel.ir import affine
from cnnc.backend.kernels.winograd_tiles import Blocking, blockings

counts = st.tuples(*[st.integers(1, 9)] * 3)


@given(counts=counts, most=st.integers(1, 64))
def test_blocks_cover_all_tiles_and_are_not_too_large(counts: tuple[int, int, int], most: int) -> None:
    found = list(blockings(counts, most))
    assert found
    for blocking in found:
        assert blocking.tiles <= most
        for blocks, size, count in zip(blocking.blocks, blocking.sizes, counts, strict=True):
            assert (blocks - 1) * size < count <= blocks * size
        assert blocking.total >= counts[0] * counts[1] * counts[2]


@given(counts=counts, most=st.integers(1, 64), data=st.data())
def test_positions_number_the_tiles_of_a_block(
    counts: tuple[int, int, int], most: int, data: st.DataObject
) -> None:
    blocking = data.draw(st.sampled_from(list(blockings(counts, most))))
    n, y, x = (data.draw(st.integers(0, blocks - 1)) for blocks in blocking.blocks)
    images, rows, columns = blocking.sizes
    positions = [
        blocking.position(
            (affine(n * images + i), affine(y * rows + j), affine(x * columns + k)),
            (affine(n), affine(y), affine(x)),
        ).constant
        for i, j, k in product(range(images), range(rows), range(columns))
    ]
    assert positions == list(range(blocking.tiles))


def test_blocks_of_whole_rows_or_images_only() -> None:
    sizes = {blocking.sizes for blocking in blockings((2, 2, 3), 6)}
    assert sizes == {(1, 1, 1), (1, 1, 2), (1, 1, 3), (1, 2, 3)}
    assert Blocking((2, 2, 3), (2, 2, 3)) in set(blockings((2, 2, 3), 12))
