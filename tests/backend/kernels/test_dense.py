"""Dense products and their input gradients: few rows and many, chunks, tails, packings, epilogues."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernels.dense import dense_vectors
from cnnc.backend.layouts import LayoutRules
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.layout import Layout
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops import OPS
from cnnc.ops.dense import Dense, DenseInputGrad
from cnnc.ops.elementwise import Bias, Map, Relu
from cnnc.ops.fused import Fused
from cnnc.passes.assign_layouts import Tensors
from cnnc.pipeline import compile_graph
from tests.kernel_sites import check_sample, check_site, site_of
from tests.native_kernels import on_runnable_targets, run_natively

NAMES = ("dense", "dense_input_grad")
SAMPLES = [(f"{name}-{i}", sample) for name in NAMES for i, sample in enumerate(OPS[name].samples())]
SIZES = (1, 7, 9, 17, 33, 130)
vector_targets = st.sampled_from([TARGETS[name] for name in ("x86-64", "avx2", "avx512")])


@on_runnable_targets
@pytest.mark.parametrize("sample", [s for _, s in SAMPLES], ids=[name for name, _ in SAMPLES])
def test_samples_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@given(
    rows=st.integers(1, 20),
    channels=st.sampled_from((7, 17)),
    maps=st.sampled_from(SIZES),
    target=vector_targets,
)
@settings(max_examples=20, deadline=None)
def test_products_interpreted(rows: int, channels: int, maps: int, target: Target) -> None:
    check_sample(Sample(Dense(), (f32(rows, channels), f32(maps, channels))), target, reversed)
    check_sample(Sample(DenseInputGrad(), (f32(rows, maps), f32(maps, channels))), target, reversed)


@on_runnable_targets
@pytest.mark.parametrize("rows", [1, 4, 5, 8, 16, 33, 70])
@pytest.mark.parametrize(("channels", "maps"), [(1100, 130), (700, 33), (33, 700), (257, 1000)])
def test_chunks_and_tails_compiled(rows: int, channels: int, maps: int, target: Target) -> None:
    """More channels than a chunk has, more maps than a block, and some of either left over."""
    x, w, run = f32(rows, channels), f32(maps, channels), run_natively(target)
    check_sample(Sample(Dense(), (x, w)), target, run=run)
    check_sample(Sample(DenseInputGrad(), (f32(rows, maps), w)), target, run=run)


@given(
    rows=st.sampled_from((1, 3, 9)),
    maps=st.sampled_from(SIZES),
    vectors=st.integers(1, 4),
    target=vector_targets,
)
@settings(max_examples=20, deadline=None)
def test_any_packing(rows: int, maps: int, vectors: int, target: Target) -> None:
    """The layout may have been chosen by another reader of the weights."""
    block, w = f"Ab{vectors * target.lanes}a", f32(maps, 9)
    product, gradient = Sample(Dense(), (f32(rows, 9), w)), Sample(DenseInputGrad(), (f32(rows, maps), w))
    check_site(site_of(product, target, ("ab", block, "ab")), product)
    check_site(site_of(gradient, target, ("ab", block, "ab")), gradient)


@on_runnable_targets
@pytest.mark.parametrize("rows", [1, 6, 40])
def test_epilogues_compiled(rows: int, target: Target) -> None:
    forward = GraphBuilder("dense_bias_relu")
    x, w, b = (forward.input(n, t) for n, t in zip("xwb", (f32(rows, 33), f32(41, 33), f32(41)), strict=True))
    y = forward.emit(Bias(), forward.emit(Dense(), x, w), b)
    graph = forward.build([y, forward.emit(Relu(), y)])
    check_sample(Sample(Fused(graph), (x.type, w.type, b.type)), target, run=run_natively(target))
    backward = GraphBuilder("masked_input_grad")
    dy, v, z = (f32(rows, 41), f32(41, 5, 3, 3), f32(rows, 5, 3, 3))
    inputs = [backward.input(n, t) for n, t in zip("abc", (dy, v, z), strict=True)]
    dx = backward.emit(DenseInputGrad(), *inputs[:2])
    graph = backward.build([backward.emit(Map("select(0.0 < b, a, 0.0)"), dx, inputs[2])])
    check_sample(Sample(Fused(graph), (dy, v, z)), target, run=run_natively(target))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("rows", [1, 8, 64])
def test_layers_of_vgg_are_proven_and_shared_out(rows: int, target: Target) -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(rows, 512, 7, 7)), b.param("w", f32(4096, 512, 7, 7))
    y = b.emit(Dense(), x, w)
    program = compile_graph(b.build([b.emit(DenseInputGrad(), y, w)]), (), target).program
    kernels = [call for call in program.calls if call.node and call.node.op.name != "relayout"]
    assert [call.node.op.name for call in kernels if call.node] == ["dense", "dense_input_grad"]
    assert all(call.proof.conflicts > 0 for call in kernels)
    assert not any(call.node and w in call.node.operands for call in program.calls if call not in kernels)


def test_the_gradient_reads_weights_as_the_product_has_them() -> None:
    rules = LayoutRules(TARGETS["avx2"])
    w, dy, dx = f32(100, 30), f32(8, 100), f32(8, 30)
    for tag in ("Ab16a", "Ab24a", "ab"):
        found = rules(DenseInputGrad(), Tensors((dy, w), (None, Layout(tag)), (dx,)))
        assert found.operands[1] == Layout(tag)
    packed = rules(DenseInputGrad(), Tensors((dy, w), (None, Layout("Ba8b")), (dx,))).operands[1]
    assert packed is not None and packed.blocked_axis == 0


@given(rows=st.integers(1, 200), width=st.integers(1, 100), target=st.sampled_from(list(TARGETS.values())))
@settings(max_examples=60, deadline=None)
def test_blocks_fit_the_registers(rows: int, width: int, target: Target) -> None:
    assert 1 <= dense_vectors(target, rows, width) <= min(width, target.registers // 2)
