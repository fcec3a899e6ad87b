"""The native functions around the kernels: a program's entry, packing, and the test of the CPU.

An entry is straight code: for each call the addresses of its buffers, then the kernel itself or, where
the work is worth it, the fork-join pool. It allocates nothing and keeps no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cnnc.backend.emit import kernel_symbol
from cnnc.backend.kernel.nest import iterations, trip_count
from cnnc.backend.lower import Call, Program
from cnnc.ir.graph import Value
from cnnc.ir.plan import ALIGNMENT, Placement, Space


def entry_ir(symbol: str, prefix: str, program: Program) -> str:
    """`void @symbol(inputs..., outputs..., ptr params, ptr workspace, ptr pool)`, in front of them
    `i64 given` if the number of images is free: it is taken for 1 if it is less, and for the batch if it
    is more.

    Calls worth it fork by @prefix_parallel. Behind the plan's arena, the workspace holds the calling
    thread's scratch memory.
    """
    if program.microbatch == program.batch:
        return _calls_ir(f"void @{symbol}", prefix, program)
    turn = f"{symbol}.turn"
    return _turns_ir(symbol, turn, program) + "\n" + _calls_ir(f"internal void @{turn}", prefix, program)


def _ports(program: Program) -> dict[str, Value]:
    """The names of a program's inputs and outputs, with the values of its plan."""
    graph = program.plan.graph
    inputs = {f"%in{i}": value for i, value in enumerate(graph.inputs)}
    return inputs | {f"%out{i}": value for i, value in enumerate(graph.outputs)}


def _turns_ir(symbol: str, turn: str, program: Program) -> str:
    """The function that computes a batch in turns of as many images as the plan is for."""
    ports, each = _ports(program), program.microbatch
    given, blocks = ", ".join(f"ptr {name}" for name in ports), "ptr %params, ptr %workspace, ptr %pool"
    steps = {name: value.type.nbytes // each for name, value in ports.items()}
    places = [
        line
        for name, step in steps.items()
        for line in (
            f"  {name}.by = mul nuw nsw i64 %first, {step}",
            f"  {name}.at = getelementptr i8, ptr {name}, i64 {name}.by",
        )
    ]
    moved = ", ".join(f"ptr {name}.at" for name in ports)
    lines = [
        f"define void @{symbol}(i64 %given, {given}, {blocks}) nounwind {{",
        "entry:",
        *_clamped(program.batch),
        "  br label %turn",
        "turn:",
        "  %first = phi i64 [ 0, %entry ], [ %next, %turn ]",
        "  %left = sub nsw i64 %images, %first",
        *places,
        f"  call void @{turn}(i64 %left, {moved}, {blocks})",
        f"  %next = add nuw nsw i64 %first, {each}",
        "  %more = icmp slt i64 %next, %images",
        "  br i1 %more, label %turn, label %done",
        "done:",
        "  ret void",
        "}",
        "",
    ]
    return "\n".join(lines)


def _calls_ir(head: str, prefix: str, program: Program) -> str:
    """The function of the plan: all calls in order."""
    parameters = [f"ptr {n}" for n in (*_ports(program), "%params", "%workspace", "%pool")]
    most = max((len(call.arguments) for call in program.calls), default=1)
    lines = [f"  %buffers = alloca [{most} x ptr]", _scratch(program)]
    if program.batch:
        parameters.insert(0, "i64 %given")
        lines += _clamped(program.microbatch)
    for number, call in enumerate(program.calls):
        forks = call.flops >= program.target.fork_flops and iterations(call.kernel) > 1
        lines += (
            _forked(number, call, prefix, program) if forks else _called(number, call, program.microbatch)
        )
    head = f"define {head}({', '.join(parameters)}) nounwind {{"
    return "\n".join([head, *lines, "  ret void", "}", ""])


def pack_ir(symbol: str, program: Program, offsets: Sequence[int]) -> str:
    """`void @symbol(ptr weights, ptr params, ptr workspace)`: fills a param block from the weights, which
    are the program's inputs and lie at these offsets in bytes behind each other."""
    lines = [f"define void @{symbol}(ptr %weights, ptr %params, ptr %workspace) nounwind {{"]
    lines += [f"  %in{i} = getelementptr i8, ptr %weights, i64 {at}" for i, at in enumerate(offsets)]
    lines.append(_scratch(program))
    for number, call in enumerate(program.calls):
        lines += _called(number, call)
    return "\n".join([*lines, "  ret void", "}", ""])


def unpack_ir(symbol: str, calls: Sequence[Call]) -> str:
    """`void @symbol(ptr params, ptr weights)`: the weights behind each other, read from a param block.

    Its kernels only copy; they have no scratch memory.
    """
    assert not any(call.kernel.scratch_bytes for call in calls), "copies need no scratch memory"
    head = f"define void @{symbol}(ptr %params, ptr %out0) nounwind {{"
    body = [line for number, call in enumerate(calls) for line in _called(number, call, scratch="null")]
    return "\n".join([head, *body, "  ret void", "}", ""])


def declarations(calls: Iterable[Call]) -> str:
    """Declarations of the kernels for a module that does not hold them."""
    lines = []
    for kernel in dict.fromkeys(call.kernel for call in calls):
        symbol = kernel_symbol(kernel)
        parameters = ", ".join([*["ptr"] * len(kernel.arguments), "i64", "i64", "i64", "ptr"])
        lines.append(f"declare void @{symbol}({parameters})")
        lines.append(f"declare void @{symbol}.task(ptr, i64, i64, i64, ptr)")
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


def _clamped(batch: int) -> list[str]:
    """The number of images: what is given, but at least 1 and at most the batch."""
    return [
        "  %some = icmp sgt i64 %given, 1",
        "  %positive = select i1 %some, i64 %given, i64 1",
        f"  %fits = icmp slt i64 %positive, {batch}",
        f"  %images = select i1 %fits, i64 %positive, i64 {batch}",
    ]


def _called(number: int, call: Call, batch: int = 0, scratch: str = "%scratch") -> list[str]:
    """One call's addresses and the call of its kernel."""
    lines, pointers = _pointers(number, call)
    counting, count, images = _counted(number, call, batch)
    buffers = [f"ptr {pointer}" for pointer in pointers]
    arguments = ", ".join([*buffers, "i64 0", f"i64 {count}", f"i64 {images}", f"ptr {scratch}"])
    return [*lines, *counting, f"  call void @{kernel_symbol(call.kernel)}({arguments})"]


def _forked(number: int, call: Call, prefix: str, program: Program) -> list[str]:
    """One call's addresses and the call of the pool, if there are images enough to be worth it."""
    lines, pointers = _pointers(number, call)
    for position, pointer in enumerate(pointers):
        slot = f"%s{number}.{position}"
        lines.append(f"  {slot} = getelementptr ptr, ptr %buffers, i64 {position}")
        lines.append(f"  store ptr {pointer}, ptr {slot}")
    counting, count, images = _counted(number, call, program.microbatch)
    pool, least = "%pool", -(-program.target.fork_flops * program.microbatch // max(1, call.flops))
    if least > 1 and call.kernel.image_loop is not None:
        pool = f"%pool{number}"
        counting.append(f"  %worth{number} = icmp sge i64 %images, {least}")
        counting.append(f"  {pool} = select i1 %worth{number}, ptr %pool, ptr null")
    arguments = f"ptr {pool}, ptr @{kernel_symbol(call.kernel)}.task, ptr %buffers"
    rest = f"i64 {count}, i64 {images}, ptr %scratch"
    return [*lines, *counting, f"  call void @{prefix}_parallel({arguments}, {rest})"]


def _pointers(number: int, call: Call) -> tuple[list[str], list[str]]:
    """The addresses of a call's buffers: how they are computed, and their names."""
    lines, pointers = [], []
    for position, place in enumerate(call.arguments):
        pointer = f"%c{number}.{position}"
        lines.append(f"  {pointer} = getelementptr i8, ptr {_base(place)}, i64 {place.offset}")
        pointers.append(pointer)
    return lines, pointers


def _counted(number: int, call: Call, batch: int) -> tuple[list[str], str, str]:
    """How many iterations a call has and of how many images: how they are computed, and both."""
    loop, kernel = call.kernel.image_loop, call.kernel
    if not batch or loop is None:
        return [], str(iterations(kernel)), "%images" if batch else "0"
    others = iterations(kernel) // trip_count(loop)
    lines = [
        f"  %above{number} = add nuw nsw i64 %images, {loop.images - 1}",
        f"  %trips{number} = udiv i64 %above{number}, {loop.images}",
        f"  %count{number} = mul nuw nsw i64 %trips{number}, {others}",
    ]
    return lines, f"%count{number}", "%images"


def _scratch(program: Program) -> str:
    """The calling thread's scratch memory, behind the arena."""
    return f"  %scratch = getelementptr i8, ptr %workspace, i64 {program.scratch_offset}"


def _base(place: Placement) -> str:
    names = {Space.ARENA: "%workspace", Space.PARAM: "%params"}
    if place.space in names:
        return names[place.space]
    return f"%{'in' if place.space is Space.INPUT else 'out'}{place.index}"
