"""Kernels as machine code on arrays whose last element is the last before a page nobody may touch."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from cnnc.backend.emit import emit_kernel, kernel_symbol
from cnnc.backend.kernel.interpreter import Order
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernel.nest import iterations, parallel_nest, trip_count
from cnnc.backend.kernels.site import Site
from cnnc.backend.llvm import CodeGenerator, Jit, host_features
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.types import Array
from tests.kernel_sites import Run, run_site

FILL = 0xA5
RUNNABLE = tuple(name for name, target in TARGETS.items() if set(target.features) <= host_features())
"""Names of the targets whose code runs on this machine."""

DISTINCT = tuple({TARGETS[name].features: name for name in reversed(RUNNABLE)}.values())
"""The same, one for each set of instructions."""

on_runnable_targets = pytest.mark.parametrize("target", [TARGETS[name] for name in DISTINCT], ids=DISTINCT)


class Guarded:
    """A copy of an array that ends where a page without any access begins; what lies before is FILL, and so
    is what lies between its rows if it is given `strides` in elements."""

    def __init__(self, array: Array, strides: Sequence[int] | None = None) -> None:
        apart = array.strides if strides is None else tuple(array.itemsize * step for step in strides)
        steps = ((n - 1) * step for n, step in zip(array.shape, apart, strict=True))
        extent = array.itemsize + sum(steps) if array.size else 0
        room = -(-extent // mmap.PAGESIZE) * mmap.PAGESIZE + mmap.PAGESIZE
        self._memory = mmap.mmap(-1, room + mmap.PAGESIZE)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self._bytes[:room] = FILL
        memory = self._bytes[room - extent : room].view(array.dtype)
        self.array: Array = as_strided(memory, array.shape, apart)
        self._around = np.ones(room // 4, bool)
        inside = as_strided(self._around[(room - extent) // 4 :], array.shape, [step // 4 for step in apart])
        inside[...] = False
        self.array[...] = array
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        done = protect(ctypes.c_void_p(self._bytes.ctypes.data + room), ctypes.c_size_t(mmap.PAGESIZE), 0)
        assert done == 0, "mprotect failed"

    def check(self) -> None:
        """Nothing in front of the array or between its rows was written."""
        around = self._bytes[: 4 * len(self._around)].reshape(-1, 4)[self._around]
        assert (around == FILL).all(), "written in front of a buffer or between its rows"


def run_natively(target: Target) -> Run:
    """Runs kernels as machine code of the target, the parallel nest cut in two."""

    def run(kernel: Kernel, memory: Mapping[str, Array], order: Order) -> None:
        del order  # machine code has its own
        NativeKernel.compile(kernel, target).run(memory, (iterations(kernel) // 2,))

    return run


@dataclass(frozen=True)
class NativeKernel:
    """A kernel compiled for a target of this machine."""

    kernel: Kernel
    jit: Jit

    @classmethod
    def compile(cls, kernel: Kernel, target: Target) -> NativeKernel:
        code = CodeGenerator(target).object_code(emit_kernel(kernel, target))
        return cls(kernel, Jit(target, [code]))

    def run(
        self,
        arrays: Mapping[str, Array],
        cuts: Sequence[int] = (),
        as_task: bool = False,
        images: int | None = None,
    ) -> None:
        """Run on the arrays in place, the parallel nest cut at these places; `as_task` as the pool does. A
        loop over images runs for `images` of them, and arrays may end behind their last.

        Scratch memory holds NaN before each part. A kernel without parallel loops runs whole whatever the
        range, so it is not called for an empty one; nor would the pool do that.
        """
        guarded = {b.name: Guarded(arrays[b.name], b.strides) for b in self.kernel.arguments}
        pointers = [g.array.ctypes.data for g in guarded.values()]
        symbol = kernel_symbol(self.kernel)
        scratch = Guarded(np.full(self.kernel.scratch_bytes // 4, np.nan, np.float32))
        whole = (ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
        for begin, end in pairwise((0, *cuts, iterations(self.kernel, images))):
            if begin == end and not parallel_nest(self.kernel)[0]:
                continue
            scratch.array.fill(np.nan)
            rest = (begin, end, self._every_image if images is None else images, scratch.array.ctypes.data)
            if as_task:
                block = (ctypes.c_void_p * len(pointers))(*pointers)
                task = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *whole)(self.jit.address(f"{symbol}.task"))
                task(ctypes.addressof(block), *rest)
            else:
                types = [ctypes.c_void_p] * len(pointers)
                ctypes.CFUNCTYPE(None, *types, *whole)(self.jit.address(symbol))(*pointers, *rest)
        scratch.check()
        for name, each in guarded.items():
            each.check()
            arrays[name][...] = each.array

    @property
    def _every_image(self) -> int:
        """The images of all iterations; 0 where the kernel does not ask."""
        loop = self.kernel.image_loop
        return loop.images * trip_count(loop) if loop else 0


def assert_same_bits(found: Array, expected: Array) -> None:
    """Equal bit for bit, zeros with their sign; any NaN is as good as another."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    if found.dtype.kind == "f":
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        number = ~np.isnan(expected)
        found, expected = found[number].view(np.uint32), expected[number].view(np.uint32)
    np.testing.assert_array_equal(found, expected)


def check_cuts(kernel: Kernel, site: Site, operands: Sequence[Array], target: Target) -> None:
    """The only result has the same bits whether the iterations, of which there are some to share out, run at
    once or one by one: as threads would have it."""
    native = NativeKernel.compile(kernel, target)

    def one_by_one(_: Kernel, memory: Mapping[str, Array], __: Order) -> None:
        native.run(memory, range(1, iterations(kernel)))

    assert iterations(kernel) >= 4
    (at_once,) = run_site(kernel, site, operands, run=lambda _, memory, __: native.run(memory))
    (parted,) = run_site(kernel, site, operands, run=one_by_one)
    assert_same_bits(parted, at_once)
