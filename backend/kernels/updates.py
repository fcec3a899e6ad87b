"""Regions that update weights: gradients, followed by elementwise ops on whole tensors.

All whole tensors of such a region lie in memory alike, padding included. So its kernel may see them as
row-major arrays of any shape that suits it, and the epilogue works on places in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import Body, flat_vectors
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.site import Site, Tensor, declare
from cnnc.errors import UnsupportedError
from cnnc.ir.layout import row_major
from cnnc.ir.types import TensorType


def seen_as_updates(
    site: Site, physical: tuple[int, ...], others: Mapping[int, tuple[int, ...]]
) -> Site:
    """The site with every whole tensor seen as an array of shape `physical`, and as given the operands
    with the numbers in `others`; scalars stay. Raises UnsupportedError if whole tensors lie differently."""
    result = site.results[0]

    def seen(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        return tensor.seen_as(TensorType(tensor.type.dtype, shape), row_major(len(shape)))

    def whole(tensor: Tensor) -> Tensor:
        if tensor.type != result.type or tensor.order != result.order:
            raise UnsupportedError(f"{site.op.name}: {tensor.type} in {tensor.layout} is no whole tensor")
        return seen(tensor, physical)

    def operand(number: int, tensor: Tensor) -> Tensor:
        if number in others:
            return seen(tensor, others[number])
        return whole(tensor) if tensor.type.rank else tensor

    operands = tuple(operand(i, t) for i, t in enumerate(site.operands))
    return replace(site, operands=operands, results=tuple(map(whole, site.results)))


def sum_parts(site: Site) -> Kernel:
    """y = the sum of x over its first axis; the rest of x lies as y does."""
    region = Region(site)
    number, size = region.operand(0), site.results[0].size
    parts = site.operands[number].shape[0]
    seen = seen_as_updates(site, (size,), {number: (parts, size)})
    k = KernelBuilder(region.anchor.name)
    arguments = declare(k, seen)
    x, epilogue = arguments.operands[number], Epilogue(k, Region(seen), arguments)
    lanes = site.lanes(size)

    def begin() -> Body:
        def tile(start: Affine, count: int) -> None:
            total = x.load((0, start), lanes, count)
            for part in range(1, parts):
                total = total + x.load((part, start), lanes, count)
            epilogue.finish({point(start): total}, count)

        return tile

    flat_vectors(k, size, lanes, begin)
    return k.build()
