"""Images kept apart: the table of ops, and the kernels that run for fewer images than the batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from cnnc.backend.images import IMAGE_OPERANDS, image_values
from cnnc.backend.kernel.interpreter import Order, interpret
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.site import Site
from cnnc.backend.lower import site_of_node
from cnnc.backend.proven import check_images
from cnnc.backend.target import TARGETS, Target
from cnnc.errors import CnncError, UnsupportedError, VerifyError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate_values
from cnnc.ir.graph import Graph, Node
from cnnc.ir.op import Op, Sample
from cnnc.ir.plan import Plan, is_alias
from cnnc.ir.types import Array, f32
from cnnc.ops import OPS
from cnnc.ops.concat import Concat
from cnnc.ops.conv import Conv2d
from cnnc.ops.elementwise import Add, Bias, Relu
from cnnc.ops.fused import Fused
from cnnc.ops.reduce import Sum
from cnnc.ops.samples import LinkedSample, random_operands
from cnnc.passes.set_batch import SetBatch
from cnnc.pipeline import compile_graph
from tests.kernel_sites import TOLERANCE, random_for, run_site
from tests.program_runner import assert_close

BATCH, FEWER = 3, 2


def keeps_apart(op: Op) -> bool:
    return any(kind in IMAGE_OPERANDS for kind in type(op).__mro__) or isinstance(op, Fused)


def graph_of(sample: Sample) -> Graph | None:
    """The sample's op on `BATCH` images, what may hold none as params; None for one that mixes images."""
    builder, kinds = GraphBuilder("sample"), type(sample.op).__mro__
    most = next((IMAGE_OPERANDS[kind] for kind in kinds if kind in IMAGE_OPERANDS), 1)
    rank = max((t.rank for t in sample.operands), default=0)
    operands = [
        builder.input(f"x{i}", t) if i < most and t.rank == rank else builder.param(f"x{i}", t)
        for i, t in enumerate(sample.operands)
    ]
    try:
        results = builder.emit_all(sample.op, *operands)
        graph = SetBatch(BATCH)(builder.build(results))
        image_values(graph, BATCH)
    except CnncError:
        return None
    return graph


SAMPLES = [
    (f"{name}-{i}", (graph, sample))
    for name, op in OPS.items()
    for i, sample in enumerate(op.samples())
    if keeps_apart(sample.op)
    for graph in (graph_of(sample),)
    if graph is not None
]
over_graphs = pytest.mark.parametrize(
    ("graph", "sample"), [case for _, case in SAMPLES], ids=[name for name, _ in SAMPLES]
)


def feeds_of(graph: Graph, sample: Sample) -> dict[str, Array]:
    """Positive numbers, of which there are roots and logarithms."""
    names = [f"x{i}" for i in range(len(sample.operands))]
    types = {v.name: v.type for v in (*graph.inputs, *graph.params)}
    drawn = sample.drawn if isinstance(sample, LinkedSample) else ()
    ranges = ((0.1, 1.0),) * (len(names) + len(drawn))
    positive = replace(sample, operands=tuple(types[name] for name in names), ranges=ranges)
    return dict(zip(names, random_operands(positive, random_for(sample)), strict=True))


def test_every_op_of_the_table_has_a_sample() -> None:
    names = {name.rsplit("-", 1)[0] for name, _ in SAMPLES}
    wanted = {name for name, op in OPS.items() if any(kind in IMAGE_OPERANDS for kind in op.__mro__)}
    assert names >= wanted


@over_graphs
def test_an_image_of_the_results_depends_on_that_of_the_operands_alone(graph: Graph, sample: Sample) -> None:
    feeds = feeds_of(graph, sample)
    with np.errstate(all="ignore"):
        before = evaluate_values(graph, feeds)
        for image in range(BATCH):
            changed = {name: array.copy() for name, array in feeds.items()}
            for value in graph.inputs:
                changed[value.name][image] += 1
            after = evaluate_values(graph, changed)
            for value in graph.outputs:
                others = np.arange(BATCH) != image
                np.testing.assert_array_equal(after[value.name][others], before[value.name][others])


@over_graphs
@pytest.mark.parametrize("target", ["x86-64", "avx2", "avx512"])
def test_kernels_stay_with_the_images_of_their_iterations(graph: Graph, sample: Sample, target: str) -> None:
    plan = compile_graph(graph, (), TARGETS[target], batch=BATCH).plan
    for site, _, holding in sites(plan, TARGETS[target]):
        check_images(kernel_for(site), site, holding)


@over_graphs
def test_kernels_compute_the_images_there_are(graph: Graph, sample: Sample) -> None:
    """The first images are right; an exact kernel leaves the others alone."""
    plan = compile_graph(graph, (), TARGETS["avx2"], batch=BATCH).plan
    with np.errstate(all="ignore"):
        values = evaluate_values(plan.graph, feeds_of(plan.graph, sample))
    for site, node, _ in sites(plan, TARGETS["avx2"]):
        operands = [values[o.name] for o in node.operands]
        exact = site.op.reference(*(x.astype(np.float64) for x in operands))
        found = run_site(kernel_for(site), site, operands, run=run_for_fewer)
        for result, expected in zip(found, exact, strict=True):
            assert_close(result[:FEWER], expected[:FEWER], TOLERANCE)
            assert not site.exact_images or np.isnan(result[FEWER:]).all()


def sites(plan: Plan, target: Target) -> Iterator[tuple[Site, Node, list[bool]]]:
    """The site of every node with images, as if in the arena and as if its arrays were a caller's, and which
    of its arguments hold images."""
    images = image_values(plan.graph, BATCH)
    for node in plan.graph.nodes:
        if not is_alias(plan, node) and not images.isdisjoint(node.operands):
            holding = [v in images for v in (*node.operands, *node.results)]
            site = replace(site_of_node(plan, node, target), in_place={}, images=BATCH)
            for exact in (False, True):
                yield replace(site, exact_images=exact), node, holding


def run_for_fewer(kernel: Kernel, memory: Mapping[str, Array], order: Order) -> None:
    interpret(kernel, memory, order, FEWER)


def site_and_kernel() -> tuple[Site, Kernel]:
    b = GraphBuilder("net")
    graph = b.build([b.emit(Relu(), b.input("x", f32(BATCH, 5)))])
    plan = compile_graph(graph, (), TARGETS["avx2"]).plan
    site = replace(site_of_node(plan, plan.graph.nodes[0], TARGETS["avx2"]), images=BATCH)
    return site, kernel_for(site)


def test_kernels_that_touch_what_they_must_not_are_refused() -> None:
    site, kernel = site_and_kernel()
    check_images(kernel, replace(site, exact_images=True), (True, True))
    (loop,) = kernel.body
    unmarked = replace(kernel, body=(replace(loop, images=0),))
    check_images(unmarked, site, (True, True))
    with pytest.raises(VerifyError, match="no loop over single images"):
        check_images(unmarked, replace(site, exact_images=True), (True, True))
    with pytest.raises(VerifyError, match="no loop over single images"):
        shared = replace(kernel, body=(replace(loop, images=2),))
        check_images(shared, replace(site, exact_images=True), (True, True))


def test_sums_over_images_are_refused() -> None:
    b = GraphBuilder("net")
    graph = b.build([b.emit(Sum((0,)), b.input("x", f32(4, 5)))])
    with pytest.raises(UnsupportedError, match="sum: not known to keep images apart"):
        image_values(graph, 4)


def test_images_side_by_side_are_refused() -> None:
    b = GraphBuilder("net")
    x = b.input("x", f32(4, 5))
    joined = b.build([b.emit(Concat(0), x, x)])
    with pytest.raises(UnsupportedError, match="concat: not known"):
        image_values(joined, 4)
    b = GraphBuilder("net")
    x = b.input("x", f32(4, 4))
    with pytest.raises(UnsupportedError, match="bias: not known"):
        image_values(b.build([b.emit(Bias(), x, b.emit(Sum((1,)), x))]), 4)


def test_outputs_without_images_are_refused() -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(4, 5)), b.param("w", f32(4, 5))
    graph = b.build([b.emit(Add(), x, w), b.emit(Relu(), w)])
    with pytest.raises(UnsupportedError, match="does not depend on the images"):
        image_values(graph, 4)


def test_convolutions_of_images_by_images_are_refused() -> None:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(3, 3, 3, 3)), b.input("w", f32(3, 3, 3, 3))
    with pytest.raises(UnsupportedError, match="conv2d: not known"):
        image_values(b.build([b.emit(Conv2d(), x, w)]), 3)
