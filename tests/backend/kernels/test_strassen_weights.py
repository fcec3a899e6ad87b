"""Halves of weights and their sums against the reference, in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.target import TARGETS, Target
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops.strassen import StrassenWeights
from tests.kernel_sites import check_sample
from tests.native_kernels import on_runnable_targets, run_natively

SAMPLES = list(StrassenWeights.samples())
vector_targets = st.sampled_from([TARGETS[name] for name in ("x86-64", "avx2", "avx512", "arm64")])


@on_runnable_targets
@pytest.mark.parametrize("sample", SAMPLES, ids=[f"{s.op} {s.operands[0]}" for s in SAMPLES])
def test_samples_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@given(maps=st.integers(1, 40), channels=st.integers(1, 70), flipped=st.booleans(), target=vector_targets)
@settings(max_examples=30, deadline=None)
def test_weights_interpreted(maps: int, channels: int, flipped: bool, target: Target) -> None:
    op = StrassenWeights(flipped)
    check_sample(Sample(op, (f32(2 * maps, 2 * channels, 1, 1),)), target, reversed)
