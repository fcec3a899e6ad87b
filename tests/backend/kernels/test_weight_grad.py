"""Weight gradients against the references: odd sizes, strides, groups, dilation, batches, every target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnc.backend.algorithms.book import Algorithms
from cnnc.backend.kernel.nest import iterations
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.layouts import LayoutRules
from cnnc.backend.target import TARGETS, Target
from cnnc.errors import ShapeError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops import OPS
from cnnc.ops.conv import Conv2d, Conv2dWeightGrad
from cnnc.ops.dense import DenseWeightGrad
from cnnc.ops.partial import PartialWinogradWeightGrad
from cnnc.ops.strassen import StrassenWeightGrad
from cnnc.passes.assign_layouts import Tensors
from cnnc.passes.choose_algorithms import ChooseAlgorithms, Preferences
from cnnc.pipeline import compile_graph
from tests.kernel_sites import check_sample, check_site, site_of
from tests.native_kernels import on_runnable_targets, run_natively

NAMES = ("conv2d_weight_grad", "dense_weight_grad", "partial_weight_grad", "sum_parts")
SAMPLES = [(f"{name}-{i}", sample) for name in NAMES for i, sample in enumerate(OPS[name].samples())]
SIZES = (1, 7, 9, 17, 33)
vector_targets = st.sampled_from([TARGETS[name] for name in ("x86-64", "avx2", "avx512")])


@on_runnable_targets
@pytest.mark.parametrize("sample", [s for _, s in SAMPLES], ids=[name for name, _ in SAMPLES])
def test_samples_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@st.composite
def gradients(draw: st.DrawFn, sizes: tuple[int, ...] = (1, 2, 5, 7), widest: int = 20) -> Sample:
    """The weight gradient of a convolution with asymmetric pads."""
    pair, pad = st.tuples(*[st.integers(1, 3)] * 2), st.tuples(*[st.integers(0, 3)] * 4)
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    inner, maps = (draw(st.integers(1, max(1, widest // groups))) for _ in range(2))
    extent, kernel = st.sampled_from(sizes), draw(pair)
    x = f32(draw(st.integers(1, 7)), inner * groups, draw(extent), draw(extent))
    conv = Conv2d(draw(pair), draw(pad), draw(pair), groups)
    try:
        (y,) = conv.infer(x, f32(maps * groups, inner, *kernel))
    except ShapeError:
        assume(False)
    op = Conv2dWeightGrad(conv.stride, conv.pad, conv.dilation, groups, kernel)
    return Sample(op, (y, x))


@given(sample=gradients(), target=vector_targets)
@settings(max_examples=30, deadline=None)
def test_gradients_interpreted(sample: Sample, target: Target) -> None:
    check_sample(sample, target, reversed)


@on_runnable_targets
@given(sample=gradients(SIZES, 70))
@settings(max_examples=12, deadline=None)
def test_gradients_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@on_runnable_targets
@given(
    rows=st.integers(1, 40),
    channels=st.sampled_from((*SIZES, 120)),
    maps=st.sampled_from((*SIZES, 120)),
    spatial=st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_dense_gradients_compiled(target: Target, rows: int, channels: int, maps: int, spatial: bool) -> None:
    x = f32(rows, channels, 2, 3) if spatial else f32(rows, channels)
    check_sample(Sample(DenseWeightGrad(), (f32(rows, maps), x)), target, run=run_natively(target))


@given(maps=st.integers(1, 40), inner=st.integers(1, 5), pixels=st.integers(1, 9), target=vector_targets)
@settings(max_examples=20, deadline=None)
def test_the_padding_of_packed_weights_is_zero(maps: int, inner: int, pixels: int, target: Target) -> None:
    """Whatever block the weights are cut into (the site's check looks at the padding)."""
    x, dy = f32(2, inner, pixels, pixels), f32(2, maps, pixels, pixels)
    sample = Sample(Conv2dWeightGrad(kernel=(1, 1)), (dy, x))
    for block in (target.lanes, 2 * target.lanes, 3 * target.lanes):
        check_site(site_of(sample, target, ("acdb", "acdb", f"Acdb{block}a")), sample)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_large_layers_are_proven_and_shared_out(target: Target) -> None:
    for dy, x, kernel in (
        (f32(8, 64, 56, 56), f32(8, 64, 58, 58), (3, 3)),
        (f32(8, 512, 7, 7), f32(8, 512, 9, 9), (3, 3)),
        (f32(8, 64, 56, 56), f32(8, 256, 56, 56), (1, 1)),
        (f32(64, 6, 28, 28), f32(64, 1, 32, 32), (5, 5)),
    ):
        b = GraphBuilder("net")
        dw = b.emit(Conv2dWeightGrad(kernel=kernel), b.input("dy", dy), b.input("x", x))
        program = compile_graph(b.build([dw]), (), target).program
        (call,) = [c for c in program.calls if c.node and isinstance(c.node.op, Conv2dWeightGrad)]
        assert call.proof.accesses > 0 and call.proof.conflicts > 0


def test_forward_and_backward_agree_on_the_packing() -> None:
    """A weight's gradient lies as the weight does, so that the update needs no copy."""
    rules = LayoutRules(TARGETS["avx2"])
    rng = np.random.default_rng(0)
    for _ in range(50):
        inner, maps, size = (int(n) for n in rng.integers(1, 70, 3))
        x, w, y = f32(1, inner, size + 2, size + 2), f32(maps, inner, 3, 3), f32(1, maps, size, size)
        forward = rules(Conv2d(), Tensors((x, w), (None, None), (y,)))
        backward = rules(Conv2dWeightGrad(kernel=(3, 3)), Tensors((y, x), (None, None), (w,)))
        assert backward.results[0] == forward.operands[1]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_enough_iterations_to_share_out(target: Target) -> None:
    """Also where there are few weights: then over the images."""
    for x, maps, kernel, stride, pad, forced in (
        (f32(8, 3, 224, 224), 64, 7, 2, 3, None),
        (f32(8, 3, 224, 224), 32, 3, 2, 1, None),
        (f32(8, 64, 56, 56), 256, 1, 1, 0, None),
        (f32(8, 1024, 14, 14), 256, 1, 1, 0, None),
        (f32(8, 128, 56, 56), 128, 3, 2, 1, "direct"),
    ):
        algorithms = ChooseAlgorithms(Algorithms(target), Preferences(forced))
        conv = Conv2d((stride, stride), (pad,) * 4)
        (dy,) = conv.infer(x, f32(maps, x.shape[1], kernel, kernel))
        b = GraphBuilder("net")
        op = Conv2dWeightGrad(conv.stride, conv.pad, kernel=(kernel, kernel))
        dw = b.emit(op, b.input("dy", dy), b.input("x", x))
        program = compile_graph(b.build([dw]), (algorithms,), target).program
        gradients = Conv2dWeightGrad | PartialWinogradWeightGrad | StrassenWeightGrad
        calls = [c for c in program.calls if c.node and isinstance(c.node.op, gradients)]
        assert [iterations(call.kernel) >= 6 for call in calls] == [True]


def test_wide_maps_are_copied_chunk_by_chunk() -> None:
    """The pixels of wide maps share sets of the first-level cache; those of narrow maps need no copies."""
    target = TARGETS["avx2"]
    for channels, maps, expected in ((1024, 256, {"source", "gradients", "sums"}), (96, 144, {"sums"})):
        sample = Sample(Conv2dWeightGrad(kernel=(1, 1)), (f32(8, maps, 14, 14), f32(8, channels, 14, 14)))
        kernel = kernel_for(site_of(sample, target, ("acdb", "acdb", "Acdb16a")))
        assert {b.name for b in kernel.buffers if b.is_scratch} == expected


@on_runnable_targets
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_copies_compiled(kernel: int, stride: int, target: Target) -> None:
    conv = Conv2d((stride, stride), (kernel // 2,) * 4)
    x = f32(3, 256, 13, 14)
    (dy,) = conv.infer(x, f32(130, 256, kernel, kernel))
    op = Conv2dWeightGrad(conv.stride, conv.pad, kernel=(kernel, kernel))
    check_sample(Sample(op, (dy, x)), target, run=run_natively(target))
