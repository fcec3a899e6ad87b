"""A unit loaded into this process: its functions as callables over addresses, its pool and workspace."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable

from cnnc.backend import llvm
from cnnc.backend.cache import ObjectCache
from cnnc.backend.unit import Unit
from cnnc.errors import CnncError, UnsupportedError
from cnnc.ir.types import Array
from cnnc.params import aligned_block

Function = Callable[..., None]


class Native:
    """`function(suffix, arguments)` gives an entry. Not safe for two threads at once: one workspace."""

    def __init__(self, unit: Unit, workspace_bytes: int, threads: int, cache: ObjectCache) -> None:
        _check_runs_here(unit)
        if not isinstance(threads, int) or threads < 1:
            raise CnncError(f"threads must be a positive whole number, not {threads!r}")
        self._unit = unit
        self._jit = unit.load(cache)
        self.workspace: Array = aligned_block(workspace_bytes)
        self.pool = self._create_pool(threads) if threads > 1 else 0

    def function(self, suffix: str, arguments: int) -> Function:
        """`name_suffix` with that many pointer arguments, given as integer addresses."""
        prototype = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * arguments))
        return prototype(self._jit.address(f"{self._unit.name}_{suffix}"))

    def _create_pool(self, threads: int) -> int:
        create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int)(
            self._jit.address(f"{self._unit.name}_pool_create")
        )
        pool = create(threads)
        if not pool:
            raise CnncError(f"cannot start {threads} threads")
        destroy = self.function("pool_destroy", 1)
        weakref.finalize(self, _destroy_pool, destroy, pool, self._jit)
        return int(pool)


def _destroy_pool(destroy: Function, pool: int, jit: llvm.Jit) -> None:
    """End the pool's threads; `jit` keeps their code alive until then."""
    destroy(pool)
    del jit


def _check_runs_here(unit: Unit) -> None:
    host, target = llvm.host(), unit.target
    missing = [f for f in target.features if f not in llvm.host_features()]
    if not llvm.is_own_architecture(target):
        raise UnsupportedError(f"code for {target.name} does not run on this machine ({host.triple})")
    if missing and host.name != target.name:
        raise UnsupportedError(f"this CPU lacks {', '.join(missing)}, which the target {target.name} needs")


def address(array: Array) -> int:
    """Where an array's data begins; faster than `array.ctypes.data`."""
    pointer: int = array.__array_interface__["data"][0]
    return pointer
