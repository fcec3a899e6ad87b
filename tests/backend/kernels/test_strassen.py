"""Strassen's products against the reference: odd sizes, tails, epilogues, parts and shares, wider maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.nest import iterations
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.strassen_blocks import Work, cut, cycles, halves_block
from cnnc.backend.target import TARGETS, Target
from cnnc.errors import UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph
from cnnc.ir.op import Sample
from cnnc.ir.types import Array, f32
from cnnc.ops.batch_sums import BatchNormSums, part_rows
from cnnc.ops.concat import Concat
from cnnc.ops.elementwise import Add, Bias, Map, Relu
from cnnc.ops.reduce import Sum
from cnnc.ops.samples import LinkedSample, random_operands
from cnnc.ops.strassen import StrassenConv2d, StrassenWeights
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.passes.fuse_prologues import FusePrologues
from tests.kernel_sites import check_graph, check_sample, run_site, site_of
from tests.native_kernels import assert_same_bits, on_runnable_targets, run_natively
from tests.nets import draw

SIZES = (1, 2, 5, 7, 9, 17)
vector_targets = st.sampled_from([TARGETS[name] for name in ("x86-64", "avx2", "avx512", "arm64")])


def sample_of(x: tuple[int, ...], maps: int) -> LinkedSample:
    weights, w = StrassenWeights(), f32(maps, x[1], 1, 1)
    return LinkedSample(
        StrassenConv2d(), (f32(*x), *weights.infer(w)), links=((1, weights, (2,)),), drawn=(w,)
    )


@st.composite
def convolutions(draw: st.DrawFn, widest: int) -> LinkedSample:
    """Any number of pixels, odd ones too, and any even number of channels and maps."""
    extent, half = st.sampled_from(SIZES), st.integers(1, widest)
    x = draw(st.integers(1, 3)), 2 * draw(half), draw(extent), draw(extent)
    return sample_of(x, 2 * draw(half))


@given(sample=convolutions(12), target=vector_targets)
@settings(max_examples=25, deadline=None)
def test_convolutions_interpreted(sample: Sample, target: Target) -> None:
    check_sample(sample, target, reversed)


@given(sample=convolutions(70))
@settings(max_examples=20, deadline=None)
@on_runnable_targets
def test_convolutions_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


@on_runnable_targets
@pytest.mark.parametrize("x", [(2, 32, 33, 17), (1, 48, 57, 57), (3, 256, 7, 7)], ids=str)
@pytest.mark.parametrize("maps", [32, 96, 160])
def test_many_pixels_and_many_weights(x: tuple[int, ...], maps: int, target: Target) -> None:
    """Among them maps and weights larger than a small second-level cache, which are asked for ahead."""
    small = replace(target, l1_bytes=2048, l2_bytes=32 * 1024)
    for machine in (target, small):
        check_sample(sample_of(x, maps), machine, run=run_natively(machine))


@on_runnable_targets
@pytest.mark.parametrize("l2_bytes", [16 * 1024, 1024 * 1024])
@pytest.mark.parametrize(("channels", "maps"), [(24, 32), (80, 16), (96, 48), (64, 96)])
def test_epilogues(channels: int, maps: int, l2_bytes: int, target: Target) -> None:
    """A bias, a residual that no small cache holds, an activation; the result lies inside a wider one."""
    b = GraphBuilder("net")
    x, w = b.input("x", f32(2, channels, 19, 7)), b.param("w", f32(maps, channels, 1, 1))
    bias, residual = b.param("b", f32(maps)), b.input("r", f32(2, maps, 19, 7))
    y = b.emit(StrassenConv2d(), x, b.emit(StrassenWeights(), w))
    y = b.emit(Relu(), b.emit(Add(), b.emit(Bias(), y, bias), residual))
    graph = b.build([b.emit(Concat(), b.emit(Relu(), residual), y)])
    machine = replace(target, l2_bytes=l2_bytes)
    feeds = {**draw(graph.inputs, 1, np.float32), **draw(graph.params, 2, np.float32)}
    program = check_graph(graph, (FuseEpilogues(),), machine, feeds, run=run_natively(machine))
    fused = [call for call in program.calls if call.node and call.node.op.name == "fused"]
    assert any("strassen_conv2d" in {n.op.name for n in call.node.op.body.nodes} for call in fused)  # type: ignore[union-attr, attr-defined]


def summed_graph(x: tuple[int, ...], maps: int, is_made: bool = False) -> Graph:
    """A gradient that is masked and left with both its sums; what it is computed from may be made as well."""
    b = GraphBuilder("net")
    dy, w = b.input("dy", f32(*x)), b.param("w", f32(x[1], maps, 1, 1))
    dy = b.emit(Map("max(a * b, 0.0)"), dy, b.input("scale", f32(x[1]))) if is_made else dy
    dx = b.emit(StrassenConv2d(), dy, b.emit(StrassenWeights(flipped=True), w))
    seen, mean = b.input("x", dx.type), b.input("mean", f32(maps))
    dx = b.emit(Map("select(0.0 < b, a, 0.0)"), dx, seen)
    sums = b.emit_all(BatchNormSums(part_rows(dx.type)), dx, seen, mean)
    return b.build([dx, *(b.emit(Sum((0,)), parts) for parts in sums)])


def feeds_of(graph: Graph) -> dict[str, Array]:
    """Of gradients that are mostly positive, whose sums grow from pixel to pixel."""
    feeds = {**draw(graph.inputs, 1, np.float32), **draw(graph.params, 2, np.float32)}
    return {**feeds, "dy": feeds["dy"] + 1, "w": feeds["w"] + 1}


@on_runnable_targets
@pytest.mark.parametrize(
    ("x", "maps"),
    [
        ((512, 6, 1, 1), 2),
        ((16, 6, 7, 7), 66),
        ((8, 34, 7, 9), 96),
        ((32, 16, 17, 1), 24),
        ((8, 8, 33, 31), 160),
        ((4, 8, 112, 113), 128),
    ],
    ids=str,
)
def test_sums_of_images(x: tuple[int, ...], maps: int, target: Target) -> None:
    """Also of images with so many pixels that each pixel's share is far below what has been added up."""
    graph = summed_graph(x, maps)
    for l2_bytes in (1 << 14, target.l2_bytes):
        machine = replace(target, l2_bytes=l2_bytes)
        program = check_graph(graph, (FuseEpilogues(),), machine, feeds_of(graph), run=run_natively(machine))
        assert "batch_norm_sums" not in {call.node.op.name for call in program.calls if call.node}


@on_runnable_targets
@pytest.mark.parametrize("x", [(8, 34, 7, 9), (9, 16, 14, 14)], ids=str)
def test_sums_of_images_that_are_made(x: tuple[int, ...], target: Target) -> None:
    """One kernel reads the source, makes the operand, and adds up what it computes."""
    graph, machine = summed_graph(x, 96, is_made=True), replace(target, l2_bytes=1 << 14)
    passes = FuseEpilogues(), FusePrologues()
    program = check_graph(graph, passes, machine, feeds_of(graph), run=run_natively(machine))
    assert {"map", "batch_norm_sums"}.isdisjoint(call.node.op.name for call in program.calls if call.node)


@on_runnable_targets
def test_sums_are_the_same_for_any_number_of_threads(target: Target) -> None:
    """Which divide the maps otherwise; and wherever threads divide the iterations."""
    node = next(n for n in FuseEpilogues()(summed_graph((3, 16, 29, 17), 192)).nodes if n.op.name == "fused")
    sample = Sample(node.op, tuple(o.type for o in node.operands))
    tags = {4: "acdb", 3: f"Cab{halves_block(target, 96)}c", 2: "ab", 1: "a"}
    layouts = [tags[value.type.rank] for value in (*node.operands, *node.results)]
    operands = random_operands(sample, np.random.default_rng(0))
    found = []
    for threads in (1, 2, 5, 16):
        machine = replace(target.suited_to(threads), l2_bytes=1 << 14)
        site = site_of(sample, machine, layouts)
        found.append(run_site(kernel_for(site), site, operands, run=run_natively(machine)))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert_same_bits(other, one)


def test_threads_share_out_pixels_or_maps() -> None:
    target = TARGETS["avx512"].suited_to(2)
    pixels, maps = cut(target, Work(1, 1560, 64, 64, 32), 1), cut(target, Work(1, 13, 1024, 256, 32), 1)
    assert (pixels.parts % 2, pixels.share) == (0, 2)
    assert (maps.parts, maps.share) == (1, 4)
    sample = sample_of((1, 2048, 7, 7), 512)
    layouts = ["acdb", "Cab32c", "acdb"]
    assert iterations(kernel_for(site_of(sample, target, layouts))) % 2 == 0


def test_images_are_summed_whole() -> None:
    target = TARGETS["avx2"].suited_to(4)
    work = Work(8, 1568, 64, 64, 16)
    assert cut(target, work, 8, whole=True).share == work.blocks, "eight images are enough for four threads"
    assert cut(target, replace(work, images=2), 2, whole=True).share == work.blocks // 2
    assert cut(target, replace(work, images=2), 2).share == work.blocks, "parts are enough as well"


@pytest.mark.parametrize(
    ("target", "maps", "block"),
    [
        ("avx512", 64, 32),
        ("avx512", 48, 48),
        ("avx512", 80, 16),
        ("avx512", 24, 8),
        ("avx2", 80, 16),
    ],
)
def test_blocks_divide_a_half_of_the_maps(target: str, maps: int, block: int) -> None:
    assert halves_block(TARGETS[target], maps) == block


def test_the_model_counts_seven_products_and_more() -> None:
    target = TARGETS["avx2"]
    work = Work(1, 392, 128, 64, 16)
    direct = 8 * work.pixels * work.channels * work.maps / (target.lanes * target.fma_units)
    assert 7 / 8 < cycles(target, work) / direct < 1


def test_other_layouts_are_refused() -> None:
    sample = sample_of((1, 32, 4, 4), 48)
    with pytest.raises(UnsupportedError, match="must halve the maps"):
        kernel_for(site_of(sample, TARGETS["avx512"], ["acdb", "Cab16c", "acdb"]))
    weights = Sample(StrassenWeights(), (f32(48, 32, 1, 1),))
    with pytest.raises(UnsupportedError, match="must be alike, and halve maps"):
        kernel_for(site_of(weights, TARGETS["avx512"], ["Acdb16a", "Cab16c"]))
