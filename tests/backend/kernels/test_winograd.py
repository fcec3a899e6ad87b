"""Winograd convolutions against the reference: odd sizes, borders, tails, epilogues, divisions, cuts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.nest import iterations
from cnnc.backend.kernels import winograd
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.winograd_blocks import Blocks, Work, divisions
from cnnc.backend.layouts import LayoutRules
from cnnc.backend.target import TARGETS, Target
from cnnc.errors import ShapeError, UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Value
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops.elementwise import Add, Bias, Relu
from cnnc.ops.fused import Fused
from cnnc.ops.pool import MaxPool2d, MeanPool2d
from cnnc.ops.samples import LinkedSample
from cnnc.ops.winograd import WinogradConv2d, convolution_sample
from cnnc.passes.assign_layouts import Tensors
from cnnc.passes.fuse_epilogues import FuseEpilogues
from tests.kernel_sites import check_graph, check_sample, site_of
from tests.native_kernels import NativeKernel, on_runnable_targets, run_natively
from tests.nets import draw

Shape = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

SHAPES: tuple[Shape, ...] = (
    ((4, 4), (3, 3), (1, 1)), ((2, 2), (3, 3), (1, 1)), ((4, 2), (3, 3), (1, 1)),
    ((1, 4), (1, 3), (1, 1)), ((2, 1), (3, 1), (1, 1)), ((1, 2), (3, 3), (1, 1)),
    ((4, 4), (4, 4), (1, 1)), ((3, 3), (5, 5), (1, 1)),
    ((4, 4), (3, 3), (2, 2)), ((2, 5), (3, 3), (2, 2)), ((4, 2), (3, 3), (2, 1)),
)  # fmt: skip
"""Tiles, kernels and strides."""

SIZES = (1, 2, 5, 7, 9, 17)
vector_targets = st.sampled_from([TARGETS[name] for name in ("x86-64", "avx2", "avx512", "arm64")])


def sample_of(
    tile: tuple[int, int],
    kernel: tuple[int, int],
    pad: tuple[int, ...],
    x: tuple[int, ...],
    maps: int,
    stride: tuple[int, int] = (1, 1),
) -> LinkedSample:
    top, left, bottom, right = pad
    op = WinogradConv2d(tile, kernel, (top, left, bottom, right), stride)
    return convolution_sample(op, f32(*x), f32(maps, x[1], *kernel))


@st.composite
def convolutions(draw: st.DrawFn, widest: int) -> LinkedSample:
    """Any tile and stride, asymmetric pads, maps smaller than a tile and larger."""
    tile, kernel, stride = draw(st.sampled_from(SHAPES))
    pad = draw(st.tuples(*[st.integers(0, 3)] * 4))
    extent, width = st.sampled_from(SIZES), st.integers(1, widest)
    x = (draw(st.integers(1, 3)), draw(width), draw(extent), draw(extent))
    sample = sample_of(tile, kernel, pad, x, draw(width), stride)
    try:
        sample.op.infer(*sample.operands)
    except ShapeError:
        assume(False)
    return sample


@given(sample=convolutions(10), target=vector_targets)
@settings(max_examples=25, deadline=None)
def test_convolutions_interpreted(sample: Sample, target: Target) -> None:
    check_sample(sample, target, reversed)


@on_runnable_targets
@given(sample=convolutions(70))
@settings(max_examples=20, deadline=None)
def test_convolutions_compiled(sample: Sample, target: Target) -> None:
    check_sample(sample, target, run=run_natively(target))


def emitted(b: GraphBuilder, sample: LinkedSample) -> Value:
    """The convolution of an input by params, which are transformed before."""
    ((_, weights, _),), (w,) = sample.links, sample.drawn
    u = b.emit(weights, b.param("w", w))
    return b.emit(sample.op, b.input("x", sample.operands[0]), u)


@on_runnable_targets
@pytest.mark.parametrize("maps", [1, 3, 21, 40])
@pytest.mark.parametrize("pool", [None, MaxPool2d((2, 2), (2, 2)), MeanPool2d((4, 2), (4, 2))], ids=str)
def test_epilogues(maps: int, pool: MaxPool2d | MeanPool2d | None, target: Target) -> None:
    """Bias, shortcut, activation and pool in registers; the last tiles hang over."""
    b = GraphBuilder("net")
    y = emitted(b, sample_of((4, 4), (3, 3), (1, 1, 1, 1), (2, 5, 12, 10), maps))
    y = b.emit(Bias(), y, b.param("bias", f32(maps)))
    y = b.emit(Relu(), b.emit(Add(), y, b.input("shortcut", y.type)))
    graph = b.build([b.emit(pool, y) if pool else y])
    feeds = {**draw(graph.inputs, 1), **draw(graph.params, 2)}
    program = check_graph(graph, (FuseEpilogues(),), target, feeds, run=run_natively(target))
    assert sum(isinstance(call.node.op, Fused) for call in program.calls if call.node) == 1


@pytest.mark.parametrize(("tile", "kernel"), [((4, 4), (3, 3)), ((1, 4), (1, 3))])
def test_windows_that_tiles_would_cut_are_not_fused(tile: tuple[int, int], kernel: tuple[int, int]) -> None:
    b = GraphBuilder("net")
    sample = sample_of(tile, kernel, (1, 1, 1, 1), (1, 8, 12 if tile[0] > 1 else 10, 12), 8)
    graph = b.build([b.emit(MaxPool2d((3, 3), (3, 3)), emitted(b, sample))])
    feeds = {**draw(graph.inputs, 1), **draw(graph.params, 2)}
    program = check_graph(graph, (FuseEpilogues(),), TARGETS["avx2"], feeds)
    assert not any(isinstance(call.node.op, Fused) for call in program.calls if call.node)


def test_windows_that_tiles_would_cut_are_refused() -> None:
    b = GraphBuilder("body")
    sample = sample_of((4, 4), (3, 3), (1, 1, 1, 1), (1, 8, 12, 12), 8)
    y = b.emit(sample.op, *(b.input(f"x{i}", t) for i, t in enumerate(sample.operands)))
    fused = Fused(b.build([b.emit(MaxPool2d((3, 3), (3, 3)), y)]))
    site = site_of(Sample(fused, sample.operands), TARGETS["avx2"], ("acdb", "Cab8c", "acdb"))
    with pytest.raises(UnsupportedError, match="windows"):
        kernel_for(site)


def work_of(target: Target, sample: Sample) -> Work:
    """What the kernel of a sample asks `choose_blocks` for."""
    asked: list[Work] = []

    def ask(_: Target, work: Work, most_images: int, has_whole_rows: bool) -> Blocks:
        asked.append(work)
        return next(divisions(work))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "choose_blocks", ask)
        kernel_for(site_of(sample, target, layouts(target, sample)))
    return asked[0]


def layouts(target: Target, sample: Sample) -> tuple[str, ...]:
    results = sample.op.infer(*sample.operands)
    rule = LayoutRules(target)(sample.op, Tensors(sample.operands, (None,) * 2, results))
    return tuple(layout.tag for layout in (*rule.operands, *rule.results) if layout)


DIVIDED = (
    sample_of((4, 4), (3, 3), (1, 1, 1, 1), (3, 9, 9, 18), 60),
    sample_of((2, 2), (3, 3), (0, 2, 1, 0), (2, 8, 7, 5), 90),
)


@pytest.mark.parametrize("sample", DIVIDED, ids=["4x4", "2x2"])
def test_every_division_computes_the_same(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that do not divide the tiles, parts and panels of the maps, a last block that is not full."""
    target = TARGETS["avx2"]
    found = list(divisions(work_of(target, sample)))
    assert {d.parts for d in found} != {1} and {d.panels for d in found} != {1}
    for division in found[:: math.ceil(len(found) / 10)]:
        monkeypatch.setattr(winograd, "choose_blocks", lambda *_, chosen=division: chosen)
        check_sample(sample, target, run=run_natively(target))


@on_runnable_targets
def test_results_are_the_same_bits_however_iterations_are_shared_out(target: Target) -> None:
    sample = sample_of((4, 4), (3, 3), (1, 1, 1, 1), (2, 17, 13, 14), 40)
    kernel = kernel_for(site_of(sample, target, layouts(target, sample)))
    native, count = NativeKernel.compile(kernel, target), iterations(kernel)
    assert count > 1
    rng = np.random.default_rng(0)
    results = []
    for cuts in ((), (count // 2,), tuple(range(1, count))):
        arrays = {b.name: rng.standard_normal(b.shape).astype(np.float32) for b in kernel.arguments}
        rng = np.random.default_rng(0)
        native.run(arrays, cuts)
        results.append(arrays[kernel.arguments[-1].name])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


LAYERS = (
    (1, 64, 224, 64), (1, 128, 112, 128), (1, 64, 56, 64), (1, 256, 56, 256), (1, 128, 28, 128),
    (1, 512, 28, 512), (1, 256, 14, 256), (1, 512, 7, 512), (1, 192, 19, 192), (8, 64, 56, 64),
    (8, 512, 7, 512),
)  # fmt: skip
"""Batch, channels, size and maps of layers of real networks."""


@pytest.mark.parametrize("target", [TARGETS["avx2"], TARGETS["avx512"]], ids=["avx2", "avx512"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_large_layers_are_proven_and_shared_out(layer: tuple[int, int, int, int], target: Target) -> None:
    """Two threads have equal shares of the work, four nearly so; scratch memory stays within reason."""
    batch, channels, size, maps = layer
    sample = sample_of((4, 4), (3, 3), (1, 1, 1, 1), (batch, channels, size, size), maps)
    kernel = kernel_for(site_of(sample, target, layouts(target, sample)))
    count = iterations(kernel)
    for threads, worst in ((2, 1.1), (4, 1.35)):
        assert math.ceil(count / threads) * threads / count <= worst
    assert kernel.scratch_bytes < 12 * target.l2_bytes
