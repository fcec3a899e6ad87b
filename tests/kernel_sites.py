"""Sites made from an op's samples, and kernels run on random operands by the interpreter."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cnnc.backend.kernel.interpreter import Order, interpret
from cnnc.backend.kernel.ir import Access, Buffer, Kernel
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.site import Site, Tensor
from cnnc.backend.lower import Program, site_of_node
from cnnc.backend.target import Target
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate_values
from cnnc.ir.graph import Graph
from cnnc.ir.layout import CHANNELS_LAST, Layout, row_major
from cnnc.ir.op import Sample
from cnnc.ir.types import DTYPES, Array, TensorType
from cnnc.ops.samples import random_operands
from cnnc.ops.shape import Relayout
from cnnc.passes.lower_batch_norm import LowerBatchNorm
from cnnc.passes.runner import Pass
from cnnc.pipeline import compile_graph

Run = Callable[[Kernel, Mapping[str, Array], Order], None]
"""Runs a kernel on its memory: the interpreter, or machine code, which has an order of its own."""

TOLERANCE = 1e-5
"""Of the largest magnitude of a result."""

SMALLEST = 1e-30
"""Magnitude below which a result counts as zero."""


def default_layouts(types: Sequence[TensorType]) -> tuple[Layout, ...]:
    """Maps channels last, everything else row-major."""
    return tuple(CHANNELS_LAST if t.rank == 4 else row_major(t.rank) for t in types)


def site_of(
    sample: Sample,
    target: Target,
    layouts: Sequence[str] | None = None,
    in_place: Mapping[int, int] | None = None,
) -> Site:
    """The site of a sample; `layouts` are the tags of its operands, then its results."""
    types = (*sample.operands, *sample.op.infer(*sample.operands))
    if layouts is None and isinstance(sample.op, Relayout):
        layouts = (sample.op.source, sample.op.target)
    chosen = default_layouts(types) if layouts is None else tuple(map(Layout, layouts))
    tensors = tuple(map(Tensor, types, chosen))
    count = len(sample.operands)
    return Site(sample.op, tensors[:count], tensors[count:], target, in_place or {})


def check_sample(
    sample: Sample, target: Target, order: Order = iter, run: Run = interpret, tolerance: float = TOLERANCE
) -> Program:
    """Check every kernel of the program that computes a sample, in the layouts a network would get."""
    builder = GraphBuilder("sample")
    operands = [builder.input(f"x{i}", t) for i, t in enumerate(sample.operands)]
    graph = builder.build(builder.emit_all(sample.op, *operands))
    arrays = random_operands(sample, random_for(sample))
    feeds = {operand.name: array for operand, array in zip(operands, arrays, strict=True)}
    return check_graph(graph, (LowerBatchNorm(),), target, feeds, order, run, tolerance)


def check_graph(
    graph: Graph,
    passes: Sequence[Pass],
    target: Target,
    feeds: Mapping[str, Array],
    order: Order = iter,
    run: Run = interpret,
    tolerance: float = TOLERANCE,
) -> Program:
    """Check every kernel of a graph's program, each on operands that its op's references made of `feeds`."""
    program = compile_graph(graph, passes, target).program
    values = evaluate_values(program.plan.graph, feeds)
    for call in program.calls:
        assert call.node is not None
        site = site_of_node(program.plan, call.node, target)
        check_kernel_on(
            call.kernel, site, [values[o.name] for o in call.node.operands], order, run, tolerance
        )
    return program


def check_site(site: Site, sample: Sample, order: Order = iter) -> Kernel:
    """Check the site's kernel on random operands of the sample; returns it."""
    kernel = kernel_for(site)
    check_kernel_on(kernel, site, random_operands(sample, random_for(sample)), order)
    return kernel


def check_kernel_on(
    kernel: Kernel,
    site: Site,
    operands: Sequence[Array],
    order: Order = iter,
    run: Run = interpret,
    tolerance: float = TOLERANCE,
) -> None:
    """Run a kernel and compare it with the op's reference in float64."""
    exact = site.op.reference(*(x.astype(np.float64) if x.dtype == np.float32 else x for x in operands))
    found = run_site(kernel, site, operands, order, run)
    for result, expected in zip(found, exact, strict=True):
        error, largest = np.abs(result - expected).max(), np.abs(expected).max()
        assert error <= tolerance * max(largest, SMALLEST), f"{site.op.name}: off by {error} of {largest}"


def random_for(sample: Sample) -> np.random.Generator:
    """A generator that depends on the sample only, so that a failure repeats."""
    return np.random.default_rng(zlib.crc32(repr(sample).encode()))


def run_site(
    kernel: Kernel, site: Site, operands: Sequence[Array], order: Order = iter, run: Run = interpret
) -> list[Array]:
    """The logical results of a kernel on logical operands; padding of the results must be zero.

    Memory that the kernel only writes holds NaN before, and what lies between rows holds NaN all the time.
    """
    rooms = {b.name: _room(b) for b in kernel.arguments}
    memory = {
        b.name: rooms[b.name][..., : b.shape[-1]] if b.pitch else rooms[b.name] for b in kernel.arguments
    }
    for buffer, tensor, array in zip(kernel.arguments, site.operands, operands, strict=False):
        memory[buffer.name][...] = tensor.layout.pack(array).reshape(buffer.shape)
    kept = {b.name: memory[b.name].copy() for b in kernel.buffers if b.access is Access.READ}
    run(kernel, memory, order)
    for name, before in kept.items():
        np.testing.assert_array_equal(memory[name], before)
    for buffer in kernel.arguments:
        assert not buffer.pitch or np.isnan(rooms[buffer.name][..., buffer.shape[-1] :]).all()
    results = []
    for number, tensor in enumerate(site.results):
        name = f"p{site.in_place[number]}" if number in site.in_place else f"r{number}"
        physical = memory[name].reshape(tensor.physical)
        results.append(tensor.layout.unpack(physical, tensor.shape))
        np.testing.assert_array_equal(tensor.layout.pack(results[-1]), physical)
    return results


def _room(buffer: Buffer) -> Array:
    """NaN (zeros for integers) where a buffer will be, and between its rows."""
    shape = (*buffer.shape[:-1], buffer.pitch) if buffer.pitch else buffer.shape
    return np.full(shape, np.nan if buffer.dtype == "f32" else 0, DTYPES[buffer.dtype])
