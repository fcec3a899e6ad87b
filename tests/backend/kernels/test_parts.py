"""Kernels on maps that lie inside the rows of wider ones: every sample of every op that takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.site import Site, Tensor
from cnnc.backend.layouts import ROW_OPS, LayoutRules
from cnnc.backend.lower import site_of_node
from cnnc.backend.target import TARGETS, Target
from cnnc.errors import UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate_values
from cnnc.ir.layout import CHANNELS_LAST
from cnnc.ir.op import Sample
from cnnc.ir.plan import is_alias
from cnnc.ir.types import Array, f32
from cnnc.ops import OPS
from cnnc.ops.dense import Dense
from cnnc.ops.fused import Fused
from cnnc.ops.reduce import Sum
from cnnc.ops.samples import random_operands
from cnnc.pipeline import compile_graph
from tests.kernel_sites import Run, check_kernel_on, interpret, random_for, site_of
from tests.native_kernels import on_runnable_targets, run_natively

AVX2 = TARGETS["avx2"]


def samples() -> dict[str, Sample]:
    """Those of ops that take parts and have maps among their tensors."""
    found = {f"{name}-{i}": (op, s) for name, op in OPS.items() for i, s in enumerate(op.samples())}
    kinds = (*ROW_OPS, Sum, Fused)
    return {name: s for name, (op, s) in found.items() if issubclass(op, kinds) and s.operands[0].rank == 4}


over_samples = pytest.mark.parametrize("sample", samples().values(), ids=samples().keys())


def sites(sample: Sample, target: Target) -> Iterator[tuple[Site, list[Array]]]:
    """The sites of a sample's program, their maps moved into wider ones, and operands for them."""
    builder = GraphBuilder("sample")
    operands = [builder.input(f"x{i}", t) for i, t in enumerate(sample.operands)]
    graph = builder.build(builder.emit_all(sample.op, *operands))
    arrays = random_operands(sample, random_for(sample))
    plan = compile_graph(graph, (), target).plan
    feeds = {operand.name: array for operand, array in zip(operands, arrays, strict=True)}
    values = evaluate_values(plan.graph, feeds)
    for node in plan.graph.nodes:
        site, rules = site_of_node(plan, node, target), LayoutRules(target)
        takes = [rules.takes_parts(node, value) for value in (*node.operands, *node.results)]
        if not is_alias(plan, node):
            yield moved(site, takes), [values[o.name] for o in node.operands]


def moved(site: Site, takes: Sequence[bool]) -> Site:
    """The site with the maps that may be moved each inside one that is wider by an odd number."""

    def inside(number: int, tensor: Tensor) -> Tensor:
        has_rows = tensor.type.rank == 4 and tensor.layout == CHANNELS_LAST and takes[number]
        return replace(tensor, pitch=tensor.shape[1] + 2 * number + 1) if has_rows else tensor

    operands = tuple(inside(i, t) for i, t in enumerate(site.operands))
    results = tuple(inside(i, t) for i, t in enumerate(site.results, len(operands)))
    in_place = {result: operands[operand] for result, operand in site.in_place.items()}
    return replace(site, operands=operands, results=tuple(in_place.get(i, r) for i, r in enumerate(results)))


def check(sample: Sample, target: Target, run: Run) -> None:
    for site, operands in sites(sample, target):
        check_kernel_on(kernel_for(site), site, operands, run=run)


@over_samples
@pytest.mark.parametrize("target", ["x86-64", "avx512"])
def test_samples(sample: Sample, target: str) -> None:
    check(sample, TARGETS[target], interpret)


@over_samples
@on_runnable_targets
def test_machine_code(sample: Sample, target: Target) -> None:
    check(sample, target, run_natively(target))


def test_a_kernel_that_runs_rows_together_refuses() -> None:
    site = site_of(Sample(Dense(), (f32(3, 5, 2, 2), f32(7, 5, 2, 2))), AVX2)
    with pytest.raises(UnsupportedError, match="cannot be run together"):
        kernel_for(moved(site, (True, False, False)))
