"""A unit loaded into this process: its functions as callables over addresses, its pool and workspace."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cnnc.backend import llvm
from cnnc.backend.cache import ObjectCache
from cnnc.backend.objects import object_maker
from cnnc.backend.target import Target, check_threads
from cnnc.backend.unit import Unit
from cnnc.errors import CnncError, UnsupportedError
from cnnc.ir.types import Array
from cnnc.params import aligned_block, concatenated

Function = Callable[..., None]


@dataclass(frozen=True)
class Code:
    """Objects of a target whose functions begin with `name_`, and the workspace that they need."""

    name: str
    target: Target
    objects: Sequence[bytes]
    workspace_bytes: int

    @classmethod
    def of(cls, unit: Unit, workspace_bytes: int, cache: ObjectCache) -> Code:
        """The code of a unit, its kernels compiled where the cache lacks them."""
        with object_maker(unit.target, cache) as maker:
            return cls(unit.name, unit.target, unit.objects(maker), workspace_bytes)


class Native:
    """`function(suffix, arguments)` gives an entry. Not safe for two threads at once: one workspace."""

    def __init__(self, code: Code, threads: int) -> None:
        _check_runs_here(code.target)
        check_threads(threads)
        self._name = code.name
        self._jit = llvm.Jit(code.target, code.objects)
        workspace_bytes = code.workspace_bytes
        self.workspace: Array = aligned_block(workspace_bytes)
        self.pool = self._create_pool(threads) if threads > 1 else 0

    def function(self, suffix: str, arguments: int) -> Function:
        """`name_suffix` with that many arguments: addresses as integers, and numbers of 64 bits."""
        prototype = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * arguments))
        return prototype(self._jit.address(f"{self._name}_{suffix}"))

    def packed(self, weights: Iterable[Array], param_bytes: int) -> Array:
        """The first param block: the weights as NAME_pack lays them out, and the states beside them."""
        floats, block = concatenated(weights), aligned_block(param_bytes)
        self.function("pack", 3)(address(floats), address(block), address(self.workspace))
        return block

    def _create_pool(self, threads: int) -> int:
        create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int)(
            self._jit.address(f"{self._name}_pool_create")
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


def runs_here(target: Target) -> bool:
    """Whether this machine's processor runs the target's code."""
    return llvm.is_own_architecture(target) and not _missing_features(target)


def _missing_features(target: Target) -> list[str]:
    """What the target needs and this processor lacks; nothing if it is the host's own target."""
    if llvm.host().name == target.name:
        return []
    return [f for f in target.features if f not in llvm.host_features()]


def _check_runs_here(target: Target) -> None:
    if not llvm.is_own_architecture(target):
        raise UnsupportedError(f"code for {target.name} does not run on this machine ({llvm.host().triple})")
    missing = _missing_features(target)
    if missing:
        raise UnsupportedError(f"this CPU lacks {', '.join(missing)}, which the target {target.name} needs")


def address(array: Array) -> int:
    """Where the data of a contiguous array begin. The buffer protocol is four times as fast as NumPy's
    attributes, but gives no view of an array that is empty or must not be written."""
    buffer: Any = array  # NumPy's stubs do not say that it is one
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    except (TypeError, ValueError):
        pointer: int = array.__array_interface__["data"][0]
        return pointer
