"""A unit: all native functions of one network, as one module for files or as cached objects to run here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cnnc.backend.cpu import supported_ir
from cnnc.backend.emit import emit_kernel
from cnnc.backend.entry import declarations, entry_ir, pack_ir, params_from_file, params_in_text, unpack_ir
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.llvm import has_assembler
from cnnc.backend.lower import Call, Program, unique_kernels
from cnnc.backend.objects import ObjectMaker
from cnnc.backend.pool import pool_ir
from cnnc.backend.target import Target


@dataclass(frozen=True)
class Packing:
    """The program that fills the param block; its inputs, the weights, lie at these offsets in bytes."""

    program: Program
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class Unit:
    """`name` is a C identifier that every visible symbol begins with. `entries` are (suffix, program)
    pairs, each a function `name_suffix`; `pack` fills the param block from the weights, `unpack` gives
    them back (for training). A unit without packing has params that its caller lays out.
    """

    name: str
    target: Target
    entries: tuple[tuple[str, Program], ...]
    pack: Packing | None = None
    unpack: tuple[Call, ...] = ()

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """Every kernel call of every function."""
        entries = tuple(c for _, program in self.entries for c in program.calls)
        return entries + (self.pack.program.calls if self.pack else ()) + self.unpack

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        return unique_kernels(self.calls)

    @property
    def scratch_bytes(self) -> int:
        """What each worker of the pool needs."""
        return max((kernel.scratch_bytes for kernel in self.kernels), default=0)

    def functions_ir(self) -> str:
        """Everything but the kernels: entries, packing, pool, the test of the CPU."""
        entries = [entry_ir(f"{self.name}_{suffix}", self.name, program) for suffix, program in self.entries]
        packing = []
        if self.pack is not None:
            packing.append(pack_ir(f"{self.name}_pack", self.pack.program, self.pack.offsets))
        if self.unpack:
            packing.append(unpack_ir(f"{self.name}_unpack", self.unpack))
        support = supported_ir(f"{self.name}_supported", self.target)
        return "\n".join([pool_ir(self.name, scratch_bytes=self.scratch_bytes), *entries, *packing, support])

    def module_ir(self, params: tuple[str, int] | None = None) -> str:
        """One module with everything; `params` is the file that holds the packed params, and its size."""
        kernels = "\n".join(emit_kernel(kernel, self.target, "internal") for kernel in self.kernels)
        data = self._params_ir(*params) if params else ""
        return f"{data}\n{kernels}\n{self.functions_ir()}"

    def _params_ir(self, path: str, nbytes: int) -> str:
        """The built-in params: by way of the assembler where there is one, for they can be large."""
        symbol = f"{self.name}_params"
        if "linux" in self.target.triple and has_assembler(self.target):
            return params_from_file(symbol, path, nbytes)
        return params_in_text(symbol, Path(path).read_bytes())

    def objects(self, maker: ObjectMaker) -> tuple[bytes, ...]:
        """The unit as objects; each kernel is one of its own, so that equal ones are compiled once."""
        return maker.objects(self.kernels, declarations(self.calls) + self.functions_ir())
