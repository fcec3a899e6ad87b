"""A unit: all native functions of one network, as one module for files or as cached objects to run here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cnnc.backend.cache import ObjectCache
from cnnc.backend.cpu import supported_ir
from cnnc.backend.emit import emit_kernel
from cnnc.backend.entry import declarations, entry_ir, packing_ir, params_from_file, params_in_text
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.llvm import CodeGenerator, Jit, has_assembler, version
from cnnc.backend.lower import Call, Program, unique_kernels
from cnnc.backend.pool import pool_ir
from cnnc.backend.target import Target


@dataclass(frozen=True)
class Unit:
    """`name` is a C identifier that every visible symbol begins with. `entries` are (suffix, program)
    pairs, each a function `name_suffix`; `pack` and `unpack` copy the weights into the param block and back.
    """

    name: str
    target: Target
    entries: tuple[tuple[str, Program], ...]
    pack: tuple[Call, ...]
    unpack: tuple[Call, ...]

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """Every kernel call of every function."""
        return tuple(c for _, program in self.entries for c in program.calls) + self.pack + self.unpack

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        return unique_kernels(self.calls)

    def functions_ir(self) -> str:
        """Everything but the kernels: entries, packing, pool, the test of the CPU."""
        entries = [entry_ir(f"{self.name}_{suffix}", self.name, program) for suffix, program in self.entries]
        packing = [
            packing_ir(f"{self.name}_pack", self.pack, ("%in0", "%params")),
            packing_ir(f"{self.name}_unpack", self.unpack, ("%params", "%out0")),
        ]
        support = supported_ir(f"{self.name}_supported", self.target)
        return "\n".join([pool_ir(self.name), *entries, *packing, support])

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

    def load(self, cache: ObjectCache) -> Jit:
        """The unit in this process; each kernel is an object of its own, so equal ones are compiled once."""
        generator = CodeGenerator(self.target)

        def compiled(text: str) -> bytes:
            key = f"{version()}\n{self.target}\n{text}"
            return cache.get(key, lambda: generator.object_code(text))

        objects = [compiled(emit_kernel(kernel, self.target)) for kernel in self.kernels]
        objects.append(compiled(declarations(self.calls) + self.functions_ir()))
        return Jit(self.target, objects)
