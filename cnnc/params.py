"""Blocks of memory for native functions: aligned arrays, and params packed into their plan's places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from cnnc.ir.evaluate import evaluate_values
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


def concatenated(arrays: Iterable[Array]) -> Array:
    """The arrays as floats one behind the other: what NAME_pack reads."""
    flat = [np.asarray(array, np.float32).reshape(-1) for array in arrays]
    return np.ascontiguousarray(np.concatenate(flat) if flat else np.zeros(1, np.float32))


def prepared_params(main: Plan, preparation: Plan, weights: Iterable[Array]) -> Array:
    """The param block as the preparation's references compute it, for code that does not run here.
    `weights` are the preparation's inputs in order."""
    graph = replace(preparation.graph, params=(), updates=())
    given = zip(graph.inputs, weights, strict=True)
    values = evaluate_values(
        graph, {v.name: np.asarray(w, np.float32).reshape(v.type.shape) for v, w in given}
    )
    return pack_params(main, {param.name: values[new.name] for param, new in preparation.graph.updates})


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
