"""Kernels of batch normalization: any channels, blocks, parts and layouts of weights; data far from zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.site import Site, Tensor
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.op import Sample
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.batch_sums import BatchMoments, BatchNormSums, MergeMoments, part_rows, row_count
from cnnc.ops.norm import ScaleMaps
from tests.kernel_sites import check_site, default_layouts, run_site, site_of

SMALL_CACHE = replace(TARGETS["avx2"], l2_bytes=4096)
"""So that a part has several blocks."""


def batch_site(op: BatchMoments | BatchNormSums, x: TensorType, target: Target, pitch: int = 0) -> Site:
    operands = (x,) if isinstance(op, BatchMoments) else (x, x, f32(x.shape[1]))
    types = (*operands, *op.infer(*operands))
    tensors = [Tensor(t, layout) for t, layout in zip(types, default_layouts(types), strict=True)]
    if pitch:
        tensors = [replace(t, pitch=pitch) if t.type == x else t for t in tensors]
    return Site(op, tuple(tensors[: len(operands)]), tuple(tensors[len(operands) :]), target)


@pytest.mark.parametrize("channels", [1, 3, 7, 8, 33, 64, 72, 100])
@pytest.mark.parametrize("target", [SMALL_CACHE, replace(TARGETS["avx512"], l2_bytes=4096)], ids=str)
@pytest.mark.parametrize("kind", [BatchMoments, BatchNormSums])
def test_blocks_and_tails(
    kind: type[BatchMoments] | type[BatchNormSums], channels: int, target: Target
) -> None:
    """Two parts, the first of several blocks, the second of one and a bit."""
    site = batch_site(kind(64), f32(3, channels, 3, 9), target)
    check_site(site, Sample(site.op, tuple(t.type for t in site.operands)))


@pytest.mark.parametrize("mean", [0.0, 100.0, -1000.0])
def test_variance_of_data_far_from_zero(mean: float) -> None:
    """A mean of a hundred deviations costs nothing, one of a thousand what float32 data must lose."""
    x = f32(4, 9, 17, 16)
    rng = np.random.default_rng(0)
    data = (rng.standard_normal(x.shape) + mean).astype(np.float32)
    rows = 256
    site = batch_site(BatchMoments(rows), x, SMALL_CACHE)
    parts = run_site(kernel_for(site), site, [data])
    merge = MergeMoments(rows, row_count(x))
    means, squares = merge_operands(merge, parts)
    exact = data.astype(np.float64).transpose(1, 0, 2, 3).reshape(9, -1)
    np.testing.assert_allclose(means, exact.mean(1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(squares, exact.var(1), rtol=1e-5)


def merge_operands(op: MergeMoments, parts: list[Array]) -> list[Array]:
    """Mean and variance by the kernel that merges parts."""
    types = (f32(*parts[0].shape), f32(*parts[1].shape))
    site = site_of(Sample(op, types), TARGETS["avx2"])
    return run_site(kernel_for(site), site, parts)


def test_an_outlier_in_the_first_row_is_harmless() -> None:
    """Differences are taken from the mean of the first rows of a part, whatever they are."""
    x = f32(1, 5, 32, 32)
    data = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    data[:, :, 0, 0] += 50
    site = batch_site(BatchMoments(1024), x, TARGETS["avx2"])
    _, squares = run_site(kernel_for(site), site, [data])
    exact = data.astype(np.float64).reshape(5, -1).var(1) * 1024
    np.testing.assert_allclose(squares[0], exact, rtol=1e-4)


@pytest.mark.parametrize("layout", ["abcd", "acdb", "Acdb8a", "Bcda16b", "Bacd8b"])
@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_scaled_in_any_layout(layout: str, axis: int) -> None:
    w = f32(19, 21, 3, 1)
    sample = Sample(ScaleMaps(axis), (w, f32(w.shape[axis])))
    check_site(site_of(sample, TARGETS["avx2"], (layout, "a", layout)), sample)


@pytest.mark.parametrize("layout", ["ab", "ba", "Ab48a"])
def test_dense_weights_are_scaled(layout: str) -> None:
    sample = Sample(ScaleMaps(), (f32(50, 9), f32(50)))
    check_site(site_of(sample, TARGETS["avx512"], (layout, "a", layout)), sample)


def test_parts_do_not_depend_on_the_target_and_suffice_for_many_threads() -> None:
    for shape in ((8, 64, 112, 112), (8, 2048, 7, 7), (1, 64, 256, 256)):
        x = f32(*shape)
        parts = -(-row_count(x) // part_rows(x))
        assert 16 <= parts <= 64
    assert part_rows(f32(2, 16, 8, 8)) >= 128, "a small batch is one part"


def test_rows_inside_wider_ones() -> None:
    """Channels 0..9 of 33: the kernel steps over what lies between."""
    op, x = BatchMoments(16), f32(1, 9, 5, 7)
    kernel = kernel_for(batch_site(op, x, TARGETS["avx2"], pitch=33))
    assert [b.pitch for b in kernel.buffers] == [33, 0, 0]
