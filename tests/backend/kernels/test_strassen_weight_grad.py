"""Strassen's weight gradients against the reference: odd sizes, parts, chunks, strips, updates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.site import Site
from cnnc.backend.kernels.strassen_weight_grad_parts import Work, choose_parts
from cnnc.backend.layouts import LayoutRules
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops.concat import Concat
from cnnc.ops.conv import Conv2d, Conv2dWeightGrad
from cnnc.ops.elementwise import Map, Relu
from cnnc.ops.partial import PartialStrassenWeightGrad
from cnnc.ops.strassen import StrassenWeightGrad
from cnnc.passes.assign_layouts import Tensors
from cnnc.passes.fuse_epilogues import FuseEpilogues
from tests.kernel_sites import check_graph, check_sample, run_site, site_of
from tests.native_kernels import check_cuts, on_runnable_targets, run_natively
from tests.nets import draw

SIZES = (1, 2, 5, 7, 9, 17)
SAMPLES = [*StrassenWeightGrad.samples(), *PartialStrassenWeightGrad.samples()]
SMALL_CACHE = 24 * 1024
"""Bytes of a second-level cache that makes many parts and chunks of a small layer."""

vector_targets = st.sampled_from([TARGETS[name] for name in ("x86-64", "avx2", "avx512", "arm64")])


def sample_of(x: tuple[int, ...], maps: int, parts: int = 1) -> Sample:
    op = PartialStrassenWeightGrad(parts) if parts > 1 else StrassenWeightGrad()
    return Sample(op, (f32(x[0], maps, *x[2:]), f32(*x)))


def site_for(sample: Sample, target: Target) -> Site:
    """In the layouts the target's rules give it."""
    tensors = Tensors(sample.operands, (None, None), sample.op.infer(*sample.operands))
    rule = LayoutRules(target)(sample.op, tensors)
    return site_of(sample, target, [str(layout) for layout in (*rule.operands, *rule.results)])


def small(target: Target) -> Target:
    return replace(target, l1_bytes=4 * 1024, l2_bytes=SMALL_CACHE)


@st.composite
def gradients(draw: st.DrawFn, widest: int) -> Sample:
    """Any number of pixels, odd ones too, and any even number of channels and maps."""
    extent, half, parts = st.sampled_from(SIZES), st.integers(1, widest), draw(st.integers(1, 2))
    x = parts * draw(st.integers(1, 2)), 2 * draw(half), draw(extent), draw(extent)
    return sample_of(x, 2 * draw(half), parts)


@on_runnable_targets
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_samples_compiled(sample: Sample, target: Target) -> None:
    for machine in (target, small(target)):
        check_sample(sample, machine, run=run_natively(machine))


@given(sample=gradients(12), target=vector_targets, is_small=st.booleans())
@settings(max_examples=25, deadline=None)
def test_gradients_interpreted(sample: Sample, target: Target, is_small: bool) -> None:
    check_sample(sample, small(target) if is_small else target, reversed)


@given(sample=gradients(70))
@settings(max_examples=15, deadline=None)
@on_runnable_targets
def test_gradients_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@on_runnable_targets
@pytest.mark.parametrize("x", [(2, 32, 33, 17), (1, 48, 57, 57), (3, 256, 7, 7)], ids=str)
@pytest.mark.parametrize("maps", [32, 112, 160])
def test_many_pixels_and_many_weights(x: tuple[int, ...], maps: int, target: Target) -> None:
    """Among them maps larger than a small second-level cache, which are asked for ahead."""
    for machine in (target, small(target)):
        check_sample(sample_of(x, maps), machine, run=run_natively(machine))


@on_runnable_targets
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("channels", "maps"), [(24, 32), (80, 16), (34, 36), (64, 112)])
def test_updates_of_weights_in_other_blocks(channels: int, maps: int, parts: int, target: Target) -> None:
    """The weights lie as the convolution reads them, whose blocks need not divide a half of the maps; the
    source is a part of wider maps."""
    b = GraphBuilder("net")
    x, dy, w = (
        b.input("x", f32(2, channels, 9, 7)),
        b.input("dy", f32(2, maps, 9, 7)),
        b.param("w", f32(maps, channels, 1, 1)),
    )
    source = b.emit(Relu(), x)
    y = b.emit(Conv2d(), source, w)
    dw = b.emit(StrassenWeightGrad(), dy, source)
    graph = b.build([y, b.emit(Concat(), b.emit(Relu(), dy), source), b.emit(Map("a - 0.1 * b"), w, dw)])
    feeds = {**draw(graph.inputs, 1), **draw(graph.params, 2)}
    check_graph(graph, (FuseEpilogues(),), target, feeds, run=run_natively(target))


@on_runnable_targets
def test_the_number_of_threads_does_not_change_a_bit(target: Target) -> None:
    sample = sample_of((2, 64, 17, 9), 96)
    site, rng = site_for(sample, small(target)), np.random.default_rng(3)
    operands = [rng.uniform(-1, 1, t.shape).astype(np.float32) for t in sample.operands]
    check_cuts(kernel_for(site), site, operands, target)


def test_errors_in_single_precision_stay_small() -> None:
    sample = sample_of((8, 64, 28, 28), 64)
    target = TARGETS["avx2"]
    site, rng = site_for(sample, target), np.random.default_rng(4)
    dy, x = (rng.standard_normal(t.shape).astype(np.float32) for t in sample.operands)
    (found,) = run_site(kernel_for(site), site, (dy, x), run=run_natively(target))
    (exact,) = Conv2dWeightGrad().reference(dy.astype(np.float64), x.astype(np.float64))
    assert np.abs(found - exact).max() < 3e-6 * np.abs(exact).max()


def work_of(pairs: int, channels: int, maps: int, strips: int = 1) -> Work:
    return Work(strips, pairs, channels, maps, 8, 16)


@pytest.mark.parametrize("target", ["avx2", "avx512"])
@pytest.mark.parametrize("layer", [(784, 256, 64), (12544, 64, 64), (196, 512, 256)])
def test_products_stay_in_the_cache_and_parts_suffice_for_threads(
    target: str, layer: tuple[int, int, int]
) -> None:
    machine = TARGETS[target]
    parts = choose_parts(machine, work_of(*layer))
    assert parts.sums_bytes <= machine.l2_bytes // 2
    assert parts.number >= 4
    assert layer[0] <= parts.chunks * parts.pairs < layer[0] + parts.chunks


def test_sizes_do_not_depend_on_the_number_of_threads() -> None:
    work = work_of(784, 256, 64)
    one, many = (choose_parts(TARGETS["avx2"].suited_to(n), work) for n in (1, 16))
    assert (one.channels, one.vectors, one.pairs) == (many.channels, many.vectors, many.pairs)


def test_the_model_counts_seven_products_and_more() -> None:
    target = TARGETS["avx2"]
    parts = choose_parts(target, work_of(784, 128, 64, 8))
    direct = 8 * 8 * 784 * 128 * 64 / (target.lanes * target.fma_units)
    assert 7 / 8 < parts.number * parts.cycles / direct < 1
