"""Winograd convolutions that transform their weights themselves: runs of channels, turned filters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.nest import iterations
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.winograd_blocks import filter_run
from cnnc.backend.layouts import LayoutRules
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops.elementwise import Add, Bias, Relu
from cnnc.ops.fused import Fused
from cnnc.ops.winograd import InlineWinogradConv2d
from cnnc.passes.assign_layouts import Tensors
from cnnc.passes.fuse_epilogues import FuseEpilogues
from tests.kernel_sites import TOLERANCE, check_graph, check_sample, site_of
from tests.native_kernels import NativeKernel, on_runnable_targets, run_natively
from tests.nets import draw

SAMPLES = list(InlineWinogradConv2d.samples())
SAME = (1, 1, 1, 1)

TOLERANCES = {4: TOLERANCE, 5: 2 * TOLERANCE}
"""By tile: rounding grows with the points, and makes 5e-6 to 2e-5 of the largest result."""

vector_targets = st.sampled_from([TARGETS[name] for name in ("x86-64", "avx2", "avx512", "arm64")])


def sample_of(tile: int, flipped: bool, x: tuple[int, int, int, int], maps: int) -> Sample:
    w = (x[1], maps) if flipped else (maps, x[1])
    op = InlineWinogradConv2d((tile, tile), (3, 3), SAME, flipped=flipped)
    return Sample(op, (f32(*x), f32(*w, 3, 3)))


def layouts(target: Target, sample: Sample) -> tuple[str, ...]:
    results = sample.op.infer(*sample.operands)
    rule = LayoutRules(target)(sample.op, Tensors(sample.operands, (None,) * 2, results))
    return tuple(layout.tag for layout in (*rule.operands, *rule.results) if layout)


@on_runnable_targets
@pytest.mark.parametrize("sample", SAMPLES, ids=[str(s.op) for s in SAMPLES])
def test_samples_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@given(
    tile=st.sampled_from((2, 4, 5)),
    flipped=st.booleans(),
    channels=st.integers(1, 24),
    maps=st.integers(1, 24),
    target=vector_targets,
)
@settings(max_examples=15, deadline=None)
def test_interpreted(tile: int, flipped: bool, channels: int, maps: int, target: Target) -> None:
    check_sample(sample_of(tile, flipped, (1, channels, 5, 7), maps), target, reversed)


@on_runnable_targets
@given(
    tile=st.sampled_from((4, 5)),
    flipped=st.booleans(),
    channels=st.sampled_from((31, 32, 48, 50)),
    maps=st.integers(9, 70),
    size=st.sampled_from((1, 7, 9)),
)
@settings(max_examples=15, deadline=None)
def test_several_runs_of_channels(
    tile: int, flipped: bool, channels: int, maps: int, size: int, target: Target
) -> None:
    """With so many results that the largest is no accident."""
    sample, tolerance = sample_of(tile, flipped, (2, channels, size, size), maps), TOLERANCES[tile]
    check_sample(sample, target, run=run_natively(target), tolerance=tolerance)


@on_runnable_targets
@pytest.mark.parametrize("flipped", [False, True])
def test_epilogues(flipped: bool, target: Target) -> None:
    b = GraphBuilder("net")
    sample = sample_of(4, flipped, (2, 64, 7, 9), 40)
    y = b.emit(sample.op, b.input("x", sample.operands[0]), b.param("w", sample.operands[1]))
    y = b.emit(Bias(), y, b.param("bias", f32(40)))
    y = b.emit(Relu(), b.emit(Add(), y, b.input("shortcut", y.type)))
    graph = b.build([y])
    feeds = {**draw(graph.inputs, 1), **draw(graph.params, 2)}
    program = check_graph(graph, (FuseEpilogues(),), target, feeds, run=run_natively(target))
    assert sum(isinstance(call.node.op, Fused) for call in program.calls if call.node) == 1


@on_runnable_targets
@pytest.mark.parametrize("flipped", [False, True])
def test_results_are_the_same_bits_however_iterations_are_shared_out(flipped: bool, target: Target) -> None:
    sample = sample_of(4, flipped, (2, 64, 13, 14), 70)
    kernel = kernel_for(site_of(sample, target, layouts(target, sample)))
    native, count = NativeKernel.compile(kernel, target), iterations(kernel)
    assert count > 1
    results = []
    for cuts in ((), (count // 2,), tuple(range(1, count))):
        rng = np.random.default_rng(0)
        arrays = {b.name: rng.standard_normal(b.shape).astype(np.float32) for b in kernel.arguments}
        native.run(arrays, cuts)
        results.append(arrays[kernel.arguments[-1].name])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@given(
    target=vector_targets,
    points=st.sampled_from((4, 6, 7)),
    block=st.integers(1, 4),
    channels=st.integers(1, 600),
    units=st.sampled_from((1, 2, 3)),
)
def test_runs_divide_the_channels(target: Target, points: int, block: int, channels: int, units: int) -> None:
    unit = units * target.lanes
    run = filter_run(target, points, block * target.lanes, channels, unit)
    assert run % unit == 0
    assert channels % run == 0 or run == math.ceil(channels / unit) * unit
    if channels % unit == 0:
        assert run == unit or 4 * points * block * target.lanes * run <= target.l1_bytes // 4


@pytest.mark.parametrize("target", [TARGETS["avx2"], TARGETS["avx512"]], ids=["avx2", "avx512"])
@pytest.mark.parametrize("flipped", [False, True])
def test_large_layers_are_proven_and_shared_out(flipped: bool, target: Target) -> None:
    """Transformed weights take no memory but a row of points, in the first-level cache."""
    sample = sample_of(4, flipped, (8, 512, 7, 7), 512)
    kernel = kernel_for(site_of(sample, target, layouts(target, sample)))
    assert iterations(kernel) % 4 == 0
    (made,) = (b for b in kernel.buffers if b.name == "filters")
    assert 4 * math.prod(made.shape) <= target.l1_bytes
