"""The native functions around the kernels: a program's entry, packing, and the test of the CPU.

An entry is straight code: for each call the addresses of its buffers, then the kernel itself or, where
the work is worth it, the fork-join pool. It allocates nothing and keeps no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cnnc.backend.emit import iterations, kernel_symbol
from cnnc.backend.lower import Call, Program
from cnnc.ir.plan import ALIGNMENT, Placement, Space


def entry_ir(symbol: str, prefix: str, program: Program) -> str:
    """`void @symbol(inputs..., outputs..., ptr params, ptr workspace, ptr pool)`.

    Calls worth it fork by @prefix_parallel. Behind the plan's arena, the workspace holds the calling
    thread's scratch memory.
    """
    graph = program.plan.graph
    names = [f"%in{i}" for i in range(len(graph.inputs))] + [f"%out{i}" for i in range(len(graph.outputs))]
    parameters = ", ".join(f"ptr {n}" for n in (*names, "%params", "%workspace", "%pool"))
    most = max((len(call.arguments) for call in program.calls), default=1)
    lines = [f"define void @{symbol}({parameters}) nounwind {{", f"  %buffers = alloca [{most} x ptr]"]
    lines.append(_scratch(program))
    for number, call in enumerate(program.calls):
        forks = call.flops >= program.target.fork_flops and iterations(call.kernel) > 1
        lines += _call(number, call, prefix if forks else None, "%scratch")
    return "\n".join([*lines, "  ret void", "}", ""])


def pack_ir(symbol: str, program: Program, offsets: Sequence[int]) -> str:
    """`void @symbol(ptr weights, ptr params, ptr workspace)`: fills a param block from the weights, which
    are the program's inputs and lie at these offsets in bytes behind each other."""
    lines = [f"define void @{symbol}(ptr %weights, ptr %params, ptr %workspace) nounwind {{"]
    lines += [f"  %in{i} = getelementptr i8, ptr %weights, i64 {at}" for i, at in enumerate(offsets)]
    lines.append(_scratch(program))
    for number, call in enumerate(program.calls):
        lines += _call(number, call, None, "%scratch")
    return "\n".join([*lines, "  ret void", "}", ""])


def unpack_ir(symbol: str, calls: Sequence[Call]) -> str:
    """`void @symbol(ptr params, ptr weights)`: the weights behind each other, read from a param block.

    Its kernels only copy; they have no scratch memory.
    """
    assert not any(call.kernel.scratch_bytes for call in calls), "copies need no scratch memory"
    head = f"define void @{symbol}(ptr %params, ptr %out0) nounwind {{"
    body = [line for number, call in enumerate(calls) for line in _call(number, call, None, "null")]
    return "\n".join([head, *body, "  ret void", "}", ""])


def declarations(calls: Iterable[Call]) -> str:
    """Declarations of the kernels for a module that does not hold them."""
    lines = []
    for kernel in dict.fromkeys(call.kernel for call in calls):
        symbol = kernel_symbol(kernel)
        parameters = ", ".join([*["ptr"] * len(kernel.arguments), "i64", "i64", "ptr"])
        lines.append(f"declare void @{symbol}({parameters})")
        lines.append(f"declare void @{symbol}.task(ptr, i64, i64, ptr)")
    return "\n".join([*lines, ""])


def params_from_file(symbol: str, path: str, nbytes: int) -> str:
    """The packed params as a constant of an ELF object, which the assembler takes from the file at `path`."""
    quoted = path.replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        ".section .rodata",
        ".p2align 6",
        f".globl {symbol}",
        f".type {symbol}, @object",
        f".size {symbol}, {nbytes}",
        f"{symbol}:",
        f'.incbin "{quoted}"',
        ".text",
    ]
    escaped = (line.replace("\\", "\\5C").replace('"', "\\22") for line in lines)
    return "\n".join(f'module asm "{line}"' for line in escaped) + "\n"


def params_in_text(symbol: str, content: bytes) -> str:
    """The same, for any kind of object and without an assembler: three characters of text for each byte."""
    escaped = "\\" + content.hex("\\") if content else ""
    return f'@{symbol} = constant [{len(content)} x i8] c"{escaped}", align {ALIGNMENT}\n'


def _call(number: int, call: Call, fork_prefix: str | None, scratch: str) -> list[str]:
    """One call's addresses and the call."""
    lines, pointers = [], []
    for position, place in enumerate(call.arguments):
        pointer = f"%c{number}.{position}"
        lines.append(f"  {pointer} = getelementptr i8, ptr {_base(place)}, i64 {place.offset}")
        pointers.append(pointer)
    symbol, count = kernel_symbol(call.kernel), iterations(call.kernel)
    if fork_prefix is None:
        arguments = ", ".join([*(f"ptr {p}" for p in pointers), "i64 0", f"i64 {count}", f"ptr {scratch}"])
        return [*lines, f"  call void @{symbol}({arguments})"]
    for position, pointer in enumerate(pointers):
        slot = f"%s{number}.{position}"
        lines.append(f"  {slot} = getelementptr ptr, ptr %buffers, i64 {position}")
        lines.append(f"  store ptr {pointer}, ptr {slot}")
    arguments = f"ptr %pool, ptr @{symbol}.task, ptr %buffers, i64 {count}, ptr {scratch}"
    return [*lines, f"  call void @{fork_prefix}_parallel({arguments})"]


def _scratch(program: Program) -> str:
    """The calling thread's scratch memory, behind the arena."""
    return f"  %scratch = getelementptr i8, ptr %workspace, i64 {program.scratch_offset}"


def _base(place: Placement) -> str:
    names = {Space.ARENA: "%workspace", Space.PARAM: "%params"}
    if place.space in names:
        return names[place.space]
    return f"%{'in' if place.space is Space.INPUT else 'out'}{place.index}"
