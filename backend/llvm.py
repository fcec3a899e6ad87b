"""LLVM through llvmlite, which nothing else imports: IR text in; object code, assembly or functions out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache

import llvmlite.binding as llvm

from cnnc.backend.target import Target, match_host
from cnnc.errors import UnsupportedError


def host() -> Target:
    """The target of this machine."""
    features = {name: bool(has) for name, has in llvm.get_host_cpu_features().items()}
    return match_host(llvm.get_process_triple(), features, llvm.get_host_cpu_name())


def host_features() -> frozenset[str]:
    """What this machine's CPU has, in LLVM's words."""
    return frozenset(name for name, has in llvm.get_host_cpu_features().items() if has)


def version() -> str:
    """LLVM's version, part of every cache key."""
    return ".".join(map(str, llvm.llvm_version_info))


def has_assembler(target: Target) -> bool:
    """Whether assembly text in a module can become object code: LLVM has this machine's assembler only."""
    return is_own_architecture(target)


def is_own_architecture(target: Target) -> bool:
    """Whether this machine's processor is of the target's kind, whatever instructions it lacks."""
    return _architecture(target.triple) == _architecture(llvm.get_process_triple())


def _architecture(triple: str) -> str:
    """The first word of a triple; macOS has a name of its own for arm64."""
    first = triple.split("-")[0]
    return "aarch64" if first == "arm64" else first


def at_rest() -> AbstractContextManager[None]:
    """A block during which no other thread is inside LLVM: a process that is copied there can use its own.

    llvmlite lets one thread at a time into LLVM, by a lock that nobody would release in the copy.
    """
    lock: AbstractContextManager[None] = getattr(llvm.ffi.lib, "_lock", nullcontext())
    return lock


@dataclass(frozen=True)
class CodeGenerator:
    """Turns IR text into machine code for one target, position-independent throughout."""

    target: Target

    def object_code(self, text: str) -> bytes:
        """An object file of the module. Raises UnsupportedError for assembly text of another machine."""
        self._check_assembler(text)
        machine, module = self._prepare(text)
        code: bytes = machine.emit_object(module)
        return code

    def assembly(self, text: str) -> str:
        """The module as assembly. Raises UnsupportedError as `object_code`."""
        self._check_assembler(text)
        machine, module = self._prepare(text)
        code: str = machine.emit_assembly(module)
        return code

    def optimized(self, text: str) -> str:
        """The module after LLVM's passes, as IR text."""
        _, module = self._prepare(text)
        return str(module)

    def _check_assembler(self, text: str) -> None:
        """LLVM ends the process at assembly text that it has no assembler for."""
        if " asm " in text and not has_assembler(self.target):
            raise UnsupportedError(
                f"there is no assembler for {self.target.name} on this machine; emit llvm instead"
            )

    def _prepare(self, text: str) -> tuple[llvm.TargetMachine, llvm.ModuleRef]:
        machine = _shared_machine(self.target)
        module = llvm.parse_assembly(_with_target(text, self.target, machine))
        module.verify()
        _optimize(module, machine)
        return machine, module


@cache
def _shared_machine(target: Target) -> llvm.TargetMachine:
    """For all modules of a target: a new machine first learns what the processor is like."""
    return _machine(target)


def _machine(target: Target) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    try:
        found = llvm.Target.from_triple(target.triple)
    except RuntimeError as error:
        raise UnsupportedError(f"this LLVM has no code generator for {target.triple}: {error}") from None
    return found.create_target_machine(
        cpu=target.cpu, features=target.feature_text, opt=2, reloc="pic", codemodel="default"
    )


def _with_target(text: str, target: Target, machine: llvm.TargetMachine) -> str:
    return f'target triple = "{target.triple}"\ntarget datalayout = "{machine.target_data}"\n\n{text}'


def _optimize(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """Only scalar clean-up: the kernels are vectorized and unrolled already."""
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes = llvm.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)


class Jit:
    """Object code of this process: functions by name, alive as long as the object.

    JITLink puts all sections of an object side by side. LLVM's older loader asks for them one by one, and
    ends a process whose memory is so full that they come to lie more than two gigabytes apart.
    """

    def __init__(self, target: Target, objects: Sequence[bytes]) -> None:
        machine = _machine(replace(target, triple=llvm.get_process_triple()))
        self._compiler = llvm.create_lljit_compiler(machine, use_jit_link=True)
        library = llvm.JITLibraryBuilder().add_current_process()
        for code in objects:
            library.add_object_img(code)
        self._kept = [library.link(self._compiler, _LIBRARY)]

    def address(self, name: str) -> int:
        """Where a function or constant lies."""
        self._kept.append(self._compiler.lookup(_LIBRARY, name))
        found: int = self._kept[-1][name]
        return found


_LIBRARY = "code"
"""The name of the objects within a compiler of their own."""
