"""Winograd weight gradients against the direct method in float64: odd sizes, pads, parts and blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.nest import iterations
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.site import Site
from cnnc.backend.kernels.winograd_parts import OVERFLOW
from cnnc.backend.layouts import LayoutRules
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.op import Sample
from cnnc.ir.types import Array, f32
from cnnc.ops.conv import Conv2dWeightGrad
from cnnc.ops.partial import PartialWinogradWeightGrad
from cnnc.ops.winograd import WinogradWeightGrad
from cnnc.passes.assign_layouts import Tensors
from tests.kernel_sites import Run, check_sample, run_site, site_of
from tests.native_kernels import check_cuts, on_runnable_targets, run_natively

SAMPLES = [*WinogradWeightGrad.samples(), *PartialWinogradWeightGrad.samples()]
KINDS = st.sampled_from(
    ((1, 1, 1), (1, 3, 1), (2, 3, 1), (4, 3, 1), (4, 4, 1), (3, 5, 1), (2, 3, 2), (4, 3, 2))
)
"""Tiles, taps and strides."""

SMALL_CACHE = 24 * 1024
"""Bytes of a second-level cache that makes many blocks of a small layer."""

LIMIT = 1e-5
"""Largest difference from float64, relative to the largest gradient."""


def site_for(op: WinogradWeightGrad, shapes: tuple[tuple[int, ...], ...], target: Target) -> Site:
    """The op in the layouts the target's rules give it, for dy and x of these shapes."""
    types = tuple(f32(*shape) for shape in shapes)
    rule = LayoutRules(target)(op, Tensors(types, (None, None), op.infer(*types)))
    return site_of(Sample(op, types), target, [str(layout) for layout in (*rule.operands, *rule.results)])


def check(op: WinogradWeightGrad, dy: Array, x: Array, target: Target, run: Run) -> None:
    """A kernel's result, on NumPy arrays of float32, against the direct method."""
    site = site_for(op, (dy.shape, x.shape), target)
    (found,) = run_site(kernel_for(site), site, (dy, x), run=run)
    direct = Conv2dWeightGrad(op.stride, op.pad, kernel=op.kernel)
    (exact,) = direct.reference(dy.astype(np.float64), x.astype(np.float64))
    assert np.abs(found - exact).max() <= LIMIT * np.abs(exact).max()


def random_layer(op: WinogradWeightGrad, x: tuple[int, ...], maps: int) -> tuple[Array, Array]:
    """dy and x."""
    rng, (height, width) = np.random.default_rng(5), op.window.result_size(*x[2:])
    shapes = ((x[0], maps, height, width), x)
    dy, data = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes)
    return dy, data


@on_runnable_targets
@pytest.mark.parametrize("sample", SAMPLES, ids=[str(s.op) for s in SAMPLES])
def test_samples_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@on_runnable_targets
@pytest.mark.parametrize("sample", SAMPLES, ids=[str(s.op) for s in SAMPLES])
def test_samples_in_many_blocks(sample: Sample, target: Target) -> None:
    check_sample(sample, replace(target, l2_bytes=SMALL_CACHE), run=run_natively(target))


@on_runnable_targets
@pytest.mark.parametrize("pad", [(1, 1, 1, 1), (0, 0, 0, 0), (0, 2, 1, 0)])
@pytest.mark.parametrize(
    ("x", "maps"),
    [((2, 32, 28, 28), 64), ((1, 48, 13, 57), 24), ((3, 17, 19, 19), 33), ((9, 64, 7, 7), 80)],
)
def test_layers(
    x: tuple[int, int, int, int], maps: int, pad: tuple[int, int, int, int], target: Target
) -> None:
    for stride in ((1, 1), (2, 2)):
        op = WinogradWeightGrad((4, 4), (3, 3), pad, stride)
        check(op, *random_layer(op, x, maps), target, run_natively(target))


@given(
    rows=KINDS,
    columns=KINDS,
    pad=st.tuples(*[st.integers(0, 2)] * 4),
    x=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 11), st.integers(1, 11)),
    maps=st.integers(1, 20),
    target=st.sampled_from(("x86-64", "avx2", "avx512")),
    cache=st.sampled_from((4 * 1024, SMALL_CACHE, 512 * 1024)),
)
@settings(max_examples=25, deadline=None)
def test_any_geometry_interpreted(
    rows: tuple[int, int, int],
    columns: tuple[int, int, int],
    pad: tuple[int, int, int, int],
    x: tuple[int, int, int, int],
    maps: int,
    target: str,
    cache: int,
) -> None:
    kernel = (rows[1], columns[1])
    assume(x[2] + pad[0] + pad[2] >= kernel[0] and x[3] + pad[1] + pad[3] >= kernel[1])
    op = WinogradWeightGrad((rows[0], columns[0]), kernel, pad, (rows[2], columns[2]))
    dy, data = random_layer(op, x, maps)
    check_sample(
        Sample(op, (f32(*dy.shape), f32(*data.shape))), replace(TARGETS[target], l2_bytes=cache), reversed
    )


@pytest.mark.parametrize("target", ["avx2", "avx512"])
@pytest.mark.parametrize(
    "layer", [(8, 64, 56), (8, 128, 28), (8, 256, 14), (8, 512, 7), (1, 64, 256), (16, 192, 19)]
)
def test_layers_have_parallel_iterations(target: str, layer: tuple[int, int, int]) -> None:
    images, channels, size = layer
    shape = (images, channels, size, size)
    op = WinogradWeightGrad((4, 4), (3, 3), (1, 1, 1, 1))
    kernel = kernel_for(site_for(op, (shape, shape), TARGETS[target]))
    assert iterations(kernel) >= 4
    assert kernel.scratch_bytes <= 1.05 * OVERFLOW * TARGETS[target].l2_bytes


@on_runnable_targets
def test_the_number_of_threads_does_not_change_a_bit(target: Target) -> None:
    op = WinogradWeightGrad((4, 4), (3, 3), (1, 1, 1, 1))
    operands = random_layer(op, (2, 32, 12, 12), 64)
    site = site_for(op, (operands[0].shape, operands[1].shape), target)
    check_cuts(kernel_for(site), site, operands, target)


def test_groups_of_images_are_shared_out() -> None:
    """Each has the gradient of its own images, in a place of its own."""
    common = ((4, 4), (4, 4), (0, 0, 0, 0), (1, 1))
    whole, grouped = WinogradWeightGrad(*common), PartialWinogradWeightGrad(*common, parts=4)
    dy, x = random_layer(whole, (8, 12, 15, 18), 32)
    site = site_for(grouped, (dy.shape, x.shape), TARGETS["avx2"])
    kernel = kernel_for(site)
    assert iterations(kernel) % 4 == 0
    (found,) = run_site(kernel, site, (dy, x))
    for number, part in enumerate(found):
        images = slice(2 * number, 2 * number + 2)
        (exact,) = whole.reference(dy[images].astype(np.float64), x[images].astype(np.float64))
        assert np.abs(part - exact).max() <= LIMIT * np.abs(exact).max()
