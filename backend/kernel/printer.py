"""Kernel -> text, the form shown by the command line, kept in goldens and read back by parser.py.

kernel scale(read x: f32[64,30], write y: f32[64,30]) {
  parallel for row in 0..64 {
    v0 = load x16 x[row, 0]
    v1 = mul x16 v0, 2.0
    store x16 y[row, 0], v1
  }
}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnc.backend.kernel.ir import (
    Affine,
    Assign,
    Broadcast,
    Buffer,
    Compute,
    Declare,
    For,
    Half,
    Index,
    Instruction,
    Interleave,
    Join,
    Kernel,
    Let,
    Literal,
    Load,
    Name,
    Operand,
    Prefetch,
    Reduce,
    Reg,
    Splat,
    Statement,
    Store,
    Uniform,
)


def print_kernel(kernel: Kernel) -> str:
    """The kernel's text; `parse_kernel` of it gives an equal kernel."""
    buffers = ", ".join(map(_buffer, kernel.buffers))
    lines = [f"kernel {kernel.name}({buffers}) {{", *_block(kernel.body, "  "), "}"]
    return "\n".join(lines) + "\n"


def headline(statement: Statement) -> str:
    """The statement on one line; a loop without its body. Errors name statements by it."""
    match statement:
        case Let(name, instruction):
            return f"{name} = {_instruction(instruction)}"
        case Declare(tile, lanes, shape, initial):
            return f"reg {tile}: f32x{lanes}{_integers(shape)} = {float(initial)!r}"
        case Assign(target, instruction):
            return f"{_operand(target)} = {_instruction(instruction)}"
        case Store(buffer, index, value, lanes, count):
            return f"store x{lanes} {_place(buffer, index)}, {_operand(value)}{_count(count, lanes)}"
        case Prefetch(buffer, index):
            return f"prefetch {_place(buffer, index)}"
        case For():
            return _loop(statement)


def _block(statements: tuple[Statement, ...], indent: str) -> Iterator[str]:
    for statement in statements:
        if not isinstance(statement, For):
            yield indent + headline(statement)
            continue
        yield f"{indent}{_loop(statement)} {{"
        yield from _block(statement.body, indent + "  ")
        yield indent + "}"


def _loop(loop: For) -> str:
    parallel = "parallel " if loop.parallel else ""
    step = f" step {loop.step}" if loop.step != 1 else ""
    images = f" images {loop.images}" if loop.images else ""
    bounds = f"{_bound('max', loop.starts)}..{_bound('min', loop.stops)}"
    return f"{parallel}for {loop.variable} in {bounds}{step}{images}"


def _bound(function: str, bounds: tuple[Affine, ...]) -> str:
    texts = [print_affine(bound) for bound in bounds]
    return texts[0] if len(texts) == 1 else f"{function}({', '.join(texts)})"


def _instruction(instruction: Instruction) -> str:
    match instruction:
        case Load(buffer, index, lanes, count):
            return f"load x{lanes} {_place(buffer, index)}{_count(count, lanes)}"
        case Splat(buffer, index, lanes):
            return f"splat x{lanes} {_place(buffer, index)}"
        case Index(value, lanes):
            return f"index x{lanes} ({print_affine(value)})"
        case Compute(function, operands, lanes):
            return f"{function} x{lanes} {', '.join(map(_operand, operands))}"
        case Reduce(function, operand, lanes):
            return f"reduce {function} x{lanes} {_operand(operand)}"
        case Interleave(half, operands, lanes):
            return f"interleave {half} x{lanes} {', '.join(map(_operand, operands))}"
        case Join(operands, lanes):
            return f"join x{lanes} {', '.join(map(_operand, operands))}"
        case Half(half, operand, lanes):
            return f"half {half} x{lanes} {_operand(operand)}"
        case Broadcast(operand, lanes):
            return f"broadcast x{lanes} {_operand(operand)}"
        case Uniform(seed, counter, index, lanes):
            return f"uniform x{lanes} {seed}, {_operand(counter)}, ({print_affine(index)})"


def _operand(operand: Operand) -> str:
    match operand:
        case Name(name):
            return name
        case Reg(tile, index):
            return f"{tile}{_integers(index)}"
        case Literal(value):
            return repr(float(value))


def print_affine(expression: Affine) -> str:
    """`2*oy + r - 1`: terms in their stored order, the constant last."""
    parts = [(c, v if abs(c) == 1 else f"{abs(c)}*{v}") for v, c in expression.terms]
    if expression.constant or not parts:
        parts.append((expression.constant, str(abs(expression.constant))))
    (first, text), *rest = parts
    head = f"-{text}" if first < 0 else text
    return head + "".join(f" {'-' if c < 0 else '+'} {part}" for c, part in rest)


def _buffer(buffer: Buffer) -> str:
    pitch = f" pitch {buffer.pitch}" if buffer.pitch else ""
    return f"{buffer.access.value} {buffer.name}: {buffer.dtype}{_integers(buffer.shape)}{pitch}"


def _place(buffer: str, index: Sequence[Affine]) -> str:
    return f"{buffer}[{', '.join(map(print_affine, index))}]"


def _integers(values: Sequence[int]) -> str:
    return f"[{','.join(map(str, values))}]"


def _count(count: int, lanes: int) -> str:
    return f" count {count}" if count != lanes else ""
