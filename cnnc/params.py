"""Blocks of memory for native functions: aligned arrays, and params packed into their plan's places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from cnnc.ir.graph import Value
from cnnc.ir.plan import ALIGNMENT, Plan
from cnnc.ir.types import Array


def aligned_block(nbytes: int) -> Array:
    """`nbytes` zero bytes at an address that is a multiple of ALIGNMENT; at least one byte."""
    raw = np.zeros(max(nbytes, 1) + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + max(nbytes, 1)]


def pack_params(plan: Plan, arrays: Mapping[str, Array]) -> Array:
    """The param block with every param of the plan, taken from `arrays` in the logical order."""
    block = aligned_block(plan.param_bytes)
    for param in plan.graph.params:
        array = np.asarray(arrays[param.name], param.type.numpy).reshape(param.type.shape)
        place = plan.placement(param)
        packed = plan.layout(param).pack(array)
        block[place.offset : place.offset + packed.nbytes] = packed.reshape(-1).view(np.uint8)
    return block


def unpack_params(plan: Plan, block: Array, declared: Iterable[Value]) -> dict[str, Array]:
    """The declared params in the logical order, copied out of the block, in the shapes declared."""
    arrays = {}
    planned = {p.name: p for p in plan.graph.params}
    for value in declared:
        param = planned[value.name]
        place, layout = plan.placement(param), plan.layout(param)
        shape = layout.physical_shape(param.type.shape)
        end = place.offset + layout.nbytes(param.type)
        physical = block[place.offset : end].view(param.type.numpy).reshape(shape)
        arrays[value.name] = layout.unpack(physical, param.type.shape).reshape(value.type.shape).copy()
    return arrays
