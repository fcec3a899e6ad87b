"""Sites made from an op's samples, and kernels run on random operands by the interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from cnnc.backend.kernel.interpreter import Order, interpret
from cnnc.backend.kernel.ir import Buffer, Kernel
from cnnc.backend.kernels.region import Region
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.site import Site, Tensor
from cnnc.backend.target import Target
from cnnc.ir.layout import CHANNELS_LAST, Layout, row_major
from cnnc.ir.op import Op, Sample
from cnnc.ir.types import DTYPES, Array, TensorType
from cnnc.ops.samples import random_operands
from cnnc.ops.shape import Relayout

TOLERANCE = 1e-5
"""Of the largest magnitude of a result."""


def default_layouts(op: Op, types: Sequence[TensorType]) -> tuple[Layout, ...]:
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
    chosen = default_layouts(sample.op, types) if layouts is None else tuple(map(Layout, layouts))
    tensors = tuple(map(Tensor, types, chosen))
    count = len(sample.operands)
    return Site(sample.op, tensors[:count], tensors[count:], target, in_place or {})


def check_site(site: Site, sample: Sample, order: Order = iter) -> Kernel:
    """Build and prove the site's kernel, run it and compare it with the op's float64 reference."""
    kernel = kernel_for(site)
    operands = random_operands(sample, np.random.default_rng(len(repr(sample))))
    exact = sample.op.reference(*(x.astype(np.float64) if x.dtype == np.float32 else x for x in operands))
    found = run_site(kernel, site, operands, order)
    for result, expected in zip(found, exact, strict=True):
        error = np.abs(result - expected).max()
        assert error <= TOLERANCE * max(np.abs(expected).max(), 1e-30), f"{site.op}: off by {error}"
    return kernel


def run_site(kernel: Kernel, site: Site, operands: Sequence[Array], order: Order = iter) -> list[Array]:
    """The logical results of a kernel on logical operands; padding of the results must be zero.

    Memory that the kernel only writes holds NaN before.
    """
    memory: dict[str, Array] = {}
    for buffer, tensor, array in zip(kernel.buffers, site.operands, operands, strict=False):
        memory[buffer.name] = tensor.layout.pack(array).reshape(buffer.shape)
    for buffer in kernel.buffers[len(operands) :]:
        memory[buffer.name] = np.full(buffer.shape, np.nan, DTYPES[buffer.dtype])
    kept = {b.name: memory[b.name].copy() for b in kernel.buffers if b.access.value == "read"}
    interpret(kernel, memory, order)
    for name, before in kept.items():
        np.testing.assert_array_equal(memory[name], before)
    return [
        tensor.layout.unpack(memory[result_buffer(site, i)].reshape(tensor.physical), tensor.shape)
        for i, tensor in enumerate(site.results)
    ]


def result_buffer(site: Site, number: int) -> str:
    return f"p{site.in_place[number]}" if number in site.in_place else f"r{number}"
