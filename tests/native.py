"""LLVM IR to functions that tests call through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm


@dataclass(frozen=True)
class Native:
    """Machine code in memory, kept as long as this object."""

    engine: Any

    def address(self, name: str) -> int:
        """Where the function of that name begins, for code that takes a function pointer."""
        return int(self.engine.get_function_address(name))

    def function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        """The function of that name; result and arguments are ctypes types. Calls release Python's lock."""
        return ctypes.CFUNCTYPE(result, *arguments)(self.address(name))


def compile_ir(text: str) -> Native:
    """Machine code for this computer from a module without target lines, optimized as a network's is."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
    module = parse_for(machine, text)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return Native(engine)


def parse_for(machine: llvm.TargetMachine, text: str) -> llvm.ModuleRef:
    """The verified module of a text without target lines."""
    layout = f'target datalayout = "{machine.target_data}"\ntarget triple = "{machine.triple}"\n'
    module = llvm.parse_assembly(layout + text)
    module.verify()
    return module
