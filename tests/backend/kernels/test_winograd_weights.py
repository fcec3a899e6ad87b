"""Transformed weights against the references: both directions, every algorithm, odd numbers of maps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.nest import iterations
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.layouts import LayoutRules
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops.winograd import WinogradConv2d, WinogradWeights
from cnnc.passes.assign_layouts import Tensors
from tests.kernel_sites import check_sample, site_of
from tests.native_kernels import on_runnable_targets, run_natively

SAMPLES = list(WinogradWeights.samples())
KINDS = st.sampled_from(((1, 1, 1), (1, 3, 1), (2, 3, 1), (4, 3, 1), (4, 3, 2)))
"""Tiles, taps and strides."""

vector_targets = st.sampled_from([TARGETS[name] for name in ("x86-64", "avx2", "avx512")])


@on_runnable_targets
@pytest.mark.parametrize("sample", SAMPLES, ids=[str(s.op) for s in SAMPLES])
def test_samples_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@given(
    rows=KINDS,
    columns=KINDS,
    maps=st.integers(1, 40),
    channels=st.integers(1, 5),
    flipped=st.booleans(),
    target=vector_targets,
)
@settings(max_examples=30, deadline=None)
def test_weights_interpreted(
    rows: tuple[int, int, int],
    columns: tuple[int, int, int],
    maps: int,
    channels: int,
    flipped: bool,
    target: Target,
) -> None:
    shape = (channels, maps) if flipped else (maps, channels)
    op = WinogradWeights((rows[0], columns[0]), flipped, (rows[2], columns[2]))
    check_sample(Sample(op, (f32(*shape, rows[1], columns[1]),)), target, reversed)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("target", ["x86-64", "avx2", "avx512", "arm64"])
@pytest.mark.parametrize("maps", [1, 9, 33, 64])
def test_the_convolution_reads_what_is_written(maps: int, target: str, flipped: bool) -> None:
    rules, w = LayoutRules(TARGETS[target]), f32(*((5, maps) if flipped else (maps, 5)), 3, 3)
    weights, conv = WinogradWeights((4, 4), flipped), WinogradConv2d((4, 4), (3, 3))
    (u,), x = weights.infer(w), f32(1, 5, 9, 9)
    written = rules(weights, Tensors((w,), (None,), (u,))).results[0]
    read = rules(conv, Tensors((x, u), (None, None), conv.infer(x, u))).operands[1]
    assert written == read


@pytest.mark.parametrize("channels", [48, 131])
def test_runs_of_channels_fit_the_cache(channels: int) -> None:
    sample, target = Sample(WinogradWeights((4, 4)), (f32(64, channels, 3, 3),)), TARGETS["avx2"]
    small = replace(target, l2_bytes=target.l2_bytes // 8)
    for machine in (target, small):
        kernel = kernel_for(site_of(sample, machine, ("Acdb16a", "Cab16c")))
        assert kernel.scratch_bytes <= machine.l2_bytes // 2
        assert iterations(kernel) >= 4
        check_sample(sample, machine)
