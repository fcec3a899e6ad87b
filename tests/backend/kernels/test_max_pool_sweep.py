"""The sweep of max pooling's gradients: ties, odd sizes, parts of the channels, exactly as the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernel.nest import parallel_nest, trip_count
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.op import Sample
from cnnc.ir.types import Array, f32
from cnnc.ops.pool import MaxPool2d, MaxPool2dGrad
from tests.kernel_sites import run_site, site_of
from tests.native_kernels import on_runnable_targets, run_natively

Attributes = tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]

WINDOWS: tuple[Attributes, ...] = (
    ((3, 3), (1, 1), (1, 1, 1, 1)),
    ((3, 3), (2, 2), (1, 1, 1, 1)),
    ((3, 3), (2, 2), (0, 0, 1, 1)),  # ceil mode
    ((2, 2), (2, 2), (0, 0, 1, 1)),
    ((2, 3), (1, 2), (1, 2, 0, 1)),
    ((4, 3), (1, 1), (3, 0, 1, 2)),
    ((2, 1), (3, 2), (0, 0, 0, 0)),
    ((1, 5), (2, 3), (0, 4, 0, 3)),
)
SIZES = ((1, 9), (7, 7), (9, 17), (33, 9), (17, 33))


def tied(op: MaxPool2d, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """dy, x, y of few different values, so that most windows have several maxima, and sums are exact."""
    rng = np.random.default_rng(shape)
    x = rng.integers(-1, 1, shape, endpoint=True).astype(np.float32)
    x[..., ::3] *= -0.0  # zeros of both signs are equal
    (y,) = op.reference(x)
    return rng.integers(-9, 9, y.shape).astype(np.float32), x, y


def check_ties(attributes: Attributes, shape: tuple[int, ...], target: Target, natively: bool) -> Kernel:
    pool, op = MaxPool2d(*attributes), MaxPool2dGrad(*attributes)
    dy, x, y = tied(pool, shape)
    site = site_of(Sample(op, (f32(*y.shape), f32(*shape), f32(*y.shape))), target)
    kernel = kernel_for(site)
    run = run_natively(target) if natively else interpret
    (found,) = run_site(kernel, site, (dy, x, y), reversed, run)
    np.testing.assert_array_equal(found, op.reference(dy, x, y)[0])
    return kernel


def fits(attributes: Attributes, size: tuple[int, int]) -> bool:
    kernel, _, pad = attributes
    return all(size[i] + pad[i] + pad[i + 2] >= kernel[i] for i in (0, 1))


@on_runnable_targets
@pytest.mark.parametrize("attributes", WINDOWS, ids=str)
def test_the_first_of_equal_maxima_gets_the_gradient(attributes: Attributes, target: Target) -> None:
    for size in (size for size in SIZES if fits(attributes, size)):
        check_ties(attributes, (2, 17, *size), target, natively=True)


@pytest.mark.parametrize("attributes", WINDOWS, ids=str)
def test_on_another_machine(attributes: Attributes) -> None:
    check_ties(attributes, (1, 7, 9, 7), TARGETS["arm64"], natively=False)


@pytest.mark.parametrize(("images", "channels", "parts"), [(1, 65, 9), (3, 64, 4), (8, 64, 1), (1, 5, 1)])
def test_channels_are_divided_where_images_are_few(images: int, channels: int, parts: int) -> None:
    target = replace(TARGETS["avx2"], threads=4)
    kernel = check_ties(WINDOWS[0], (images, channels, 7, 9), target, natively=False)
    assert [trip_count(loop) for loop in parallel_nest(kernel)[0]] == [images, parts]


def test_x_is_read_once_in_each_block() -> None:
    """So that a sweep over maps that no cache holds costs what memory costs: y is not read at all."""
    kernel = check_ties(WINDOWS[0], (1, 8, 9, 9), TARGETS["avx2"], natively=False)
    assert "p2" not in str(kernel.body)


def test_minus_infinity_is_a_maximum_like_any_other() -> None:
    op, pool = MaxPool2dGrad((3, 3), (1, 1), (0, 0, 0, 0)), MaxPool2d((3, 3), (1, 1), (0, 0, 0, 0))
    x = np.full((1, 8, 5, 5), -np.inf, np.float32)
    (y,) = pool.reference(x)
    dy = np.ones_like(y)
    site = site_of(Sample(op, (f32(*y.shape), f32(*x.shape), f32(*y.shape))), TARGETS["avx2"])
    (found,) = run_site(kernel_for(site), site, (dy, x, y))
    np.testing.assert_array_equal(found, op.reference(dy, x, y)[0])
