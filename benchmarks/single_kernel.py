"""One kernel alone, called with arrays: what the convolution benchmarks and the FMA peak have in common."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cnnc.backend.emit import emit_kernel, kernel_symbol
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernel.nest import iterations
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.kernels.site import Site, Tensor
from cnnc.backend.layouts import LayoutRules
from cnnc.backend.llvm import CodeGenerator, Jit
from cnnc.backend.target import Target
from cnnc.ir.op import Op
from cnnc.ir.types import Array, f32
from cnnc.params import aligned_block
from cnnc.passes.assign_layouts import Tensors


@dataclass(frozen=True)
class LoadedOp:
    """An op's kernel in this process: `run` computes, `results` reads what it computed."""

    kernel: Kernel
    run: Callable[[], None]
    results: Callable[[], tuple[Array, ...]]


def load_op(op: Op, operands: Sequence[Array], target: Target) -> LoadedOp:
    """The kernel the compiler makes of the op on float32 operands in the layouts it chooses for it."""
    site = op_site(op, operands, target)
    places = [aligned_like(t.layout.pack(a)) for t, a in zip(site.operands, operands, strict=True)]
    outputs = [aligned(t.physical) for t in site.results]
    kernel = kernel_for(site)

    def results() -> tuple[Array, ...]:
        return tuple(t.layout.unpack(a, t.shape) for t, a in zip(site.results, outputs, strict=True))

    return LoadedOp(kernel, load_kernel(kernel, target, [*places, *outputs]), results)


def op_site(op: Op, operands: Sequence[Array], target: Target) -> Site:
    """The op as a node of its own, in the layouts the target's rules give it."""
    types = tuple(f32(*a.shape) for a in operands)
    results = op.infer(*types)
    rule = LayoutRules(target)(op, Tensors(types, (None,) * len(types), results))
    assert all(rule.operands), f"{op.name} takes an operand in any layout"
    return Site(
        op,
        tuple(Tensor(t, layout) for t, layout in zip(types, rule.operands, strict=True) if layout),
        tuple(Tensor(t, layout) for t, layout in zip(results, rule.results, strict=True)),
        target,
    )


def load_kernel(kernel: Kernel, target: Target, arrays: Sequence[Array]) -> Callable[[], None]:
    """The whole kernel over these arrays, one per argument, on one thread."""
    code = CodeGenerator(target).object_code(emit_kernel(kernel, target))
    jit = Jit(target, [code])
    pointers = [ctypes.c_void_p] * len(arrays)
    prototype = ctypes.CFUNCTYPE(None, *pointers, *[ctypes.c_int64] * 3, ctypes.c_void_p)
    scratch = aligned_block(kernel.scratch_bytes)
    function = prototype(jit.address(kernel_symbol(kernel)))
    arguments = (*(a.ctypes.data for a in arrays), 0, iterations(kernel), 0, scratch.ctypes.data)
    held = (jit, tuple(arrays), scratch)  # must outlive the function

    def run() -> None:
        function(*arguments)
        assert held

    return run


def aligned(shape: Sequence[int]) -> Array:
    """Float32 zeros, aligned as a plan aligns them."""
    return aligned_block(4 * math.prod(shape)).view(np.float32)[: math.prod(shape)].reshape(shape)


def aligned_like(array: Array) -> Array:
    """An aligned copy."""
    copy = aligned(array.shape)
    copy[...] = array
    return copy
