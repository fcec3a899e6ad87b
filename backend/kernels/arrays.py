"""Tensors seen as row-major arrays of any shape, in memory as they are.

All whole tensors of an elementwise epilogue lie in memory alike, padding included. A kernel may see them as
arrays of the shape that suits it, and the points it hands to the epilogue are then places in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cnnc.backend.kernels.site import Site, Tensor
from cnnc.errors import UnsupportedError
from cnnc.ir.layout import row_major
from cnnc.ir.types import TensorType


def as_arrays(site: Site, shape: tuple[int, ...], others: Mapping[int, tuple[int, ...]]) -> Site:
    """The site with results, and operands of their type, seen as arrays of that shape, and as given the
    operands with the numbers in `others`. What has another type stays. Raises UnsupportedError if whole
    tensors lie differently."""
    result = site.results[0]

    def whole(tensor: Tensor) -> Tensor:
        if tensor.order != result.order or tensor.physical != result.physical:
            raise UnsupportedError(f"{site.op.name}: {tensor.layout} and {result.layout} in one kernel")
        return seen_as_array(tensor, shape)

    def operand(number: int, tensor: Tensor) -> Tensor:
        if number in others:
            return seen_as_array(tensor, others[number])
        return whole(tensor) if tensor.type == result.type else tensor

    operands = tuple(operand(i, t) for i, t in enumerate(site.operands))
    return replace(site, operands=operands, results=tuple(map(whole, site.results)))


def seen_as_array(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor as a row-major array of as many elements as it has in memory."""
    return tensor.seen_as(TensorType(tensor.type.dtype, shape), row_major(len(shape)))
