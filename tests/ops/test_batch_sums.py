"""Parts of a batch: how many there are, and that moments of parts give those of all."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import ShapeError
from cnnc.ir.types import f32
from cnnc.ops.batch_sums import BatchMoments, MergeMoments, part_rows, row_count

SHAPES = ((8, 64, 112, 112), (8, 2048, 7, 7), (1, 64, 256, 256), (2, 16, 8, 8), (1, 3), (100_000, 1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parts_suffice_for_threads_and_are_worth_it(shape: tuple[int, ...]) -> None:
    x = f32(*shape)
    rows, part = row_count(x), part_rows(x)
    assert part & (part - 1) == 0, "kernels cut parts into equal blocks"
    assert -(-rows // part) <= 64
    assert part * x.shape[1] >= 1 << 15 or part >= rows
    assert part < 2 * rows
    if x.size > 1 << 20:
        assert rows / part > 20


@pytest.mark.parametrize("rows", [1, 4, 7, 64])
def test_moments_of_parts_give_those_of_all(rows: int) -> None:
    x = np.random.default_rng(0).normal(1e6, 1.0, (3, 5, 2, 7))
    mean, variance = MergeMoments(rows, 42).reference(*BatchMoments(rows).reference(x))
    np.testing.assert_allclose(mean, x.mean((0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(variance, x.var((0, 2, 3)), rtol=1e-9)


def test_mistakes_are_named() -> None:
    with pytest.raises(ShapeError, match="rows must be 1 integers of at least 1"):
        BatchMoments(0).infer(f32(2, 3))
    with pytest.raises(ShapeError, match="10 rows have 3 parts of 4"):
        MergeMoments(4, 10).infer(f32(2, 3), f32(2, 3))
