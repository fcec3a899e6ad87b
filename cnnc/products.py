"""From a compiled unit to files: what `cnnc build` writes.

    CompiledUnit -> module -> object code -> program, shared or static library, object (backend/link.py)
                           -> LLVM IR or assembly, as text

Weights are packed at build time and taken into the object by the assembler. LLVM IR and assembly hold
no weights, and no symbol NAME_params: their callers pack weights with NAME_pack.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from cnnc.backend import llvm
from cnnc.backend.cache import ObjectCache, default_directory
from cnnc.backend.interface import Interface
from cnnc.backend.link import build_program, build_shared, build_static, header_path, write_object
from cnnc.backend.target import Target
from cnnc.errors import CnncError, UnsupportedError
from cnnc.files import reason, write_whole
from cnnc.ir.types import Array
from cnnc.native import Code, Native, runs_here
from cnnc.units import CompiledUnit


class Emit(Enum):
    """The kinds of products; the value is the word `--emit` takes."""

    PROGRAM = "program"
    SHARED = "shared"
    STATIC = "static"
    OBJECT = "object"
    LLVM = "llvm"
    ASM = "asm"

    @property
    def is_text(self) -> bool:
        """LLVM IR and assembly, which hold no weights."""
        return self in (Emit.LLVM, Emit.ASM)

    @property
    def has_header(self) -> bool:
        return self in (Emit.SHARED, Emit.STATIC, Emit.OBJECT)


@dataclass(frozen=True)
class Product:
    """What was written: the file, its size in bytes, and the header beside it if there is one."""

    path: Path
    nbytes: int
    header: Path | None


def build_product(
    compiled: CompiledUnit, emit: Emit, path: str | Path, weights: Mapping[str, Array] | None
) -> Product:
    """Write a product of a unit. `weights`, by name, go inside; None leaves them outside.

    Raises UnsupportedError for what this machine lacks the tools for or the product cannot be, and
    CnncError when a file cannot be written.
    """
    if emit.is_text:
        write_whole(path, _text(compiled, emit))
        return _product(path, None)
    if compiled.train and weights is None:
        raise UnsupportedError(f"{emit.value}: training starts from weights and optimizer state inside")
    interface = compiled.interface(has_builtin_params=weights is not None)
    header = header_path(interface, path) if emit.has_header else None
    _check_place(path, header)
    if emit in (Emit.PROGRAM, Emit.SHARED):
        _check_links_here(compiled.unit.target, emit)
    _write(emit, _object_code(compiled, weights), interface, path)
    return _product(path, header)


def _write(emit: Emit, code: bytes, interface: Interface, path: str | Path) -> None:
    if emit is Emit.PROGRAM:
        build_program(code, interface, path)
    elif emit is Emit.SHARED:
        build_shared(code, interface, path)
    elif emit is Emit.STATIC:
        build_static(code, interface, path)
    else:
        write_object(code, interface, path)


def _product(path: str | Path, header: Path | None) -> Product:
    return Product(Path(path), Path(path).stat().st_size, header)


def _text(compiled: CompiledUnit, emit: Emit) -> str:
    generator, module = llvm.CodeGenerator(compiled.unit.target), compiled.unit.module_ir()
    return generator.optimized(module) if emit is Emit.LLVM else generator.assembly(module)


def _object_code(compiled: CompiledUnit, weights: Mapping[str, Array] | None) -> bytes:
    """The object of everything; the packed params lie in a file while the assembler reads them."""
    generator = llvm.CodeGenerator(compiled.unit.target)
    if weights is None:
        return generator.object_code(compiled.unit.module_ir())
    params = _param_block(compiled, weights).tobytes()
    try:
        with tempfile.TemporaryDirectory(prefix="cnnc-") as folder:
            path = Path(folder) / "params"
            write_whole(path, params)
            return generator.object_code(compiled.unit.module_ir((str(path), len(params))))
    except OSError as error:
        raise CnncError(f"cannot use the temporary folder: {reason(error)}") from None


def _param_block(compiled: CompiledUnit, weights: Mapping[str, Array]) -> Array:
    """The packed params: by the unit's own code where it can run, so that programs get a model's bits."""
    if not runs_here(compiled.unit.target):
        return compiled.prepared(weights)
    packing = replace(compiled.unit, entries=(), unpack=())
    native = Native(Code.of(packing, compiled.workspace_bytes, ObjectCache(default_directory())), 1)
    return native.packed(compiled.given(weights), compiled.main.plan.param_bytes)


def _check_place(path: str | Path, header: Path | None) -> None:
    """A header needs a place of its own beside the product."""
    if header is None:
        return
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        raise CnncError(f"cannot write {path}: a header goes beside it, so it must be a file")
    if header == Path(path):
        raise CnncError(f"cannot write {path}: the header beside it has that name; choose another")


def _check_links_here(target: Target, emit: Emit) -> None:
    """The C compiler links for this machine's kind of processor only."""
    if not llvm.is_own_architecture(target):
        raise UnsupportedError(
            f"a {emit.value} for {target.name} cannot be linked on {llvm.host().triple}; "
            "use --emit static, object, llvm or asm"
        )
