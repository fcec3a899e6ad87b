"""Epilogues that add up: the sums of batch norms' gradients beside every kind of contraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.layouts import LayoutRules
from cnnc.backend.target import TARGETS, Target
from cnnc.errors import UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Value
from cnnc.ir.op import Op, Sample
from cnnc.ir.types import Array, TensorType, f32
from cnnc.ops.batch_sums import BatchNormSums, part_rows
from cnnc.ops.conv import Conv2d, Conv2dInputGrad
from cnnc.ops.dense import Dense
from cnnc.ops.elementwise import Add, Map
from cnnc.ops.fused import Fused
from cnnc.ops.pool import MaxPool2d, MeanPool2dGrad
from cnnc.ops.reduce import Sum
from cnnc.ops.strassen import StrassenConv2d, StrassenWeights
from cnnc.ops.winograd import WinogradConv2d, WinogradWeights
from cnnc.passes import bands
from cnnc.passes.assign_layouts import Tensors
from cnnc.passes.fuse_epilogues import FuseEpilogues
from tests.kernel_sites import check_graph, site_of


@pytest.fixture(params=["avx2", "avx512"])
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def check_sums(b: GraphBuilder, dx: Value, target: Target) -> None:
    """One node computes a masked and an added gradient and both its sums."""
    x, other = b.input("x", dx.type), b.input("other", dx.type)
    mean = b.input("mean", f32(dx.type.shape[1]))
    masked = b.emit(Map("select(0.0 < b, a, 0.0)"), dx, x)
    sums = b.emit_all(BatchNormSums(part_rows(dx.type)), masked, x, mean)
    graph = b.build([b.emit(Add(), masked, other), *totals(b, sums)])
    fused = FuseEpilogues()(graph)
    regions = [node.op for node in fused.nodes if isinstance(node.op, Fused)]
    assert any(n.op.name == "batch_norm_sums" for op in regions for n in op.epilogue)
    check_graph(graph, (FuseEpilogues(),), target, feeds_of(graph))


def totals(b: GraphBuilder, sums: Sequence[Value]) -> list[Value]:
    """Values made of the parts, which have other shapes when they are fused."""
    return [b.emit(Sum((0,)), value) for value in sums]


def feeds_of(graph: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {v.name: rng.standard_normal(v.type.shape).astype(np.float32) for v in graph.inputs}


@pytest.mark.parametrize("channels", [1, 3, 7, 8, 9, 17, 33, 72])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (9, 33), (17, 17), (13, 20)], ids=str)
def test_of_one_tap(size: tuple[int, int], channels: int, target: Target) -> None:
    b = GraphBuilder("net")
    dy, w = b.input("dy", f32(2, 5, *size)), b.input("w", f32(5, channels, 1, 1))
    check_sums(b, b.emit(Conv2dInputGrad(size=size), dy, w), target)


@pytest.mark.parametrize("maps", [9, 80])
def test_of_one_tap_with_maps_from_memory(maps: int, target: Target) -> None:
    """Rows of a part are fetched before, or lines asked for on the way."""
    b = GraphBuilder("net")
    dy, w = b.input("dy", f32(4, maps, 34, 17)), b.input("w", f32(maps, 40, 1, 1))
    small = replace(target, l2_bytes=1 << 17)
    check_sums(b, b.emit(Conv2dInputGrad(size=(34, 17)), dy, w), small)


@pytest.mark.parametrize("channels", [3, 8, 33])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 1)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (17, 33)], ids=str)
def test_depthwise(size: tuple[int, int], stride: tuple[int, int], channels: int, target: Target) -> None:
    b = GraphBuilder("net")
    conv = Conv2d(stride, (1, 1, 1, 1), groups=channels)
    w = b.input("w", f32(channels, 1, 3, 3))
    (y,) = conv.infer(f32(3, channels, *size), w.type)
    gradient = Conv2dInputGrad(stride, (1, 1, 1, 1), groups=channels, size=size)
    check_sums(b, b.emit(gradient, b.input("dy", y), w), target)


@pytest.mark.parametrize("maps", [7, 33])
@pytest.mark.parametrize("tile", [(4, 4), (2, 2), (4, 1), (1, 4)], ids=str)
@pytest.mark.parametrize("size", [(7, 7), (9, 17), (14, 33)], ids=str)
def test_by_winograd(size: tuple[int, int], tile: tuple[int, int], maps: int, target: Target) -> None:
    """Tiles hang over the map; several bands, blocks and images."""
    b = GraphBuilder("net")
    kernel = tuple(3 if extent > 1 else 1 for extent in tile)
    pad = tuple(extent // 2 for extent in kernel) * 2
    u = b.emit(WinogradWeights(tile), b.input("w", f32(maps, 5, *kernel)))
    conv = WinogradConv2d(tile, (kernel[0], kernel[1]), (pad[0], pad[1], pad[0], pad[1]))
    check_sums(b, b.emit(conv, b.input("dy", f32(3, 5, *size)), u), target)


@pytest.mark.parametrize("maps", [2, 18, 34, 96])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (7, 9), (17, 1), (33, 2)], ids=str)
def test_by_strassen(
    size: tuple[int, int], maps: int, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every image is a band, of one part or several; halves with and without an odd pixel."""
    monkeypatch.setattr(bands, "LEAST_MAPS", 1)
    for l2_bytes in (target.l2_bytes, 1 << 14):
        b = GraphBuilder("net")
        u = b.emit(StrassenWeights(flipped=True), b.input("w", f32(6, maps, 1, 1)))
        dx = b.emit(StrassenConv2d(), b.input("dy", f32(3, 6, *size)), u)
        check_sums(b, dx, replace(target, l2_bytes=l2_bytes))


@pytest.mark.parametrize("channels", [7, 33])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 5), (6, 10)], ids=str)
def test_of_mean_pools(kernel: tuple[int, int], channels: int, target: Target) -> None:
    b = GraphBuilder("net")
    dy = b.input("dy", f32(2, channels, 6 // kernel[0], 10 // kernel[1]))
    check_sums(b, b.emit(MeanPool2dGrad(kernel, kernel, size=(6, 10)), dy), target)


def summed(anchor: Op, operands: Sequence[TensorType], rows: int) -> Fused:
    b = GraphBuilder("fused")
    values = [b.input(f"x{i}", type) for i, type in enumerate(operands)]
    result = b.emit(anchor, *values)
    x, mean = b.input("x", result.type), b.input("mean", f32(result.type.shape[1]))
    return Fused(b.build(b.emit_all(BatchNormSums(rows), result, x, mean)))


@pytest.mark.parametrize(
    "op",
    [
        summed(Conv2dInputGrad(size=(6, 7)), (f32(2, 5, 6, 7), f32(5, 3, 1, 1)), 28),
        summed(Conv2dInputGrad(size=(6, 7)), (f32(2, 5, 6, 7), f32(5, 3, 1, 1)), 20),
        summed(Conv2dInputGrad(size=(8, 9)), (f32(2, 5, 6, 7), f32(5, 3, 3, 3)), 72),
        summed(Dense(), (f32(4, 5), f32(3, 5)), 4),
        summed(Conv2dInputGrad((2, 2), groups=3, size=(7, 7)), (f32(1, 3, 4, 4), f32(3, 1, 1, 1)), 21),
        summed(WinogradConv2d((4, 4), (3, 3), (1, 1, 1, 1)), (f32(1, 5, 8, 8), f32(36, 5, 3)), 16),
        summed(StrassenConv2d(), (f32(2, 6, 4, 7), f32(7, 3, 8)), 14),
        summed(StrassenConv2d(), (f32(2, 6, 4, 7), f32(7, 3, 8)), 56),
        summed(MeanPool2dGrad((2, 2), (2, 2), size=(6, 6)), (f32(1, 3, 3, 3),), 6),
        summed(MaxPool2d((2, 2), (2, 2)), (f32(1, 3, 6, 6),), 9),
    ],
    ids=lambda op: op.anchor.op.name,
)
def test_other_bands_are_refused(op: Fused) -> None:
    """As a graph in text may have them."""
    operands = tuple(value.type for value in op.body.inputs)
    site = site_of(Sample(op, operands), TARGETS["avx2"])
    layouts = LayoutRules(site.target)(op, Tensors(operands, (None,) * len(operands), op.infer(*operands)))
    tensors = [
        replace(t, layout=at or t.layout) for t, at in zip(site.operands, layouts.operands, strict=True)
    ]
    with pytest.raises(UnsupportedError, match="cannot add up"):
        kernel_for(replace(site, operands=tuple(tensors)))


def test_two_sums_of_one_gradient() -> None:
    """Behind two batch norms of one sum: both are added up beside it."""
    b = GraphBuilder("net")
    dx = b.emit(Conv2dInputGrad(size=(5, 7)), b.input("dy", f32(2, 3, 5, 7)), b.input("w", f32(3, 9, 1, 1)))
    sums: list[Value] = []
    for name in "one", "other":
        x, mean = b.input(name, dx.type), b.input(f"{name}.mean", f32(9))
        sums += b.emit_all(BatchNormSums(part_rows(dx.type)), dx, x, mean)
    graph = b.build([dx, *totals(b, sums)])
    assert len(FuseEpilogues()(graph).nodes) == 5
    check_graph(graph, (FuseEpilogues(),), TARGETS["avx2"], feeds_of(graph))
