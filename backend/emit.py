"""Kernels as LLVM IR text: loops become blocks, register tiles SSA values, affine indices pointers.

The text is made so that little is left to optimize. Each loop carries the tiles it assigns in phis,
and an access is a pointer per loop nest plus a constant offset: the part of an index that depends on
an outer loop is added once, at the head of that loop's body.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cnnc.backend.instructions import Instructions, literal, vector_type
from cnnc.backend.kernel.ir import (
    Affine,
    Assign,
    Broadcast,
    Buffer,
    Compute,
    Declare,
    For,
    Index,
    Instruction,
    Kernel,
    Let,
    Literal,
    Load,
    Name,
    Operand,
    Reduce,
    Reg,
    Splat,
    Statement,
)
from cnnc.backend.kernel.printer import print_kernel
from cnnc.backend.target import Target


def kernel_symbol(kernel: Kernel) -> str:
    """The name of a kernel's function: kernels of equal text share it."""
    digest = hashlib.sha256(print_kernel(kernel).encode()).hexdigest()
    return f"kernel_{kernel.name}_{digest[:16]}"


def parallel_nest(kernel: Kernel) -> tuple[tuple[For, ...], tuple[Statement, ...]]:
    """The parallel loops at the top of a kernel, outermost first, and the body inside them."""
    loops: list[For] = []
    body = kernel.body
    while len(body) == 1 and isinstance(body[0], For) and body[0].parallel:
        loops.append(body[0])
        body = body[0].body
    return tuple(loops), body


def trip_count(loop: For) -> int:
    """Iterations of a loop with constant bounds."""
    return max(0, -(-(loop.stops[0].constant - loop.starts[0].constant) // loop.step))


def iterations(kernel: Kernel) -> int:
    """Iterations of the whole parallel nest; 1 for a kernel without parallel loops."""
    return math.prod(trip_count(loop) for loop in parallel_nest(kernel)[0])


def emit_kernel(kernel: Kernel, target: Target, linkage: str = "") -> str:
    """`void @symbol(ptr buffers..., i64 begin, i64 end)`, which runs those iterations of the parallel
    nest, and `@symbol.task(ptr buffers, i64 begin, i64 end)`, the same for the fork-join pool."""
    return _Emitter(kernel, target).function(kernel_symbol(kernel), linkage)


@dataclass
class _Level:
    """The function or a loop body while it is written: what its head holds, and what is cached there."""

    variables: frozenset[str]
    head: list[str] = field(default_factory=list)
    pointers: dict[tuple[str, tuple[tuple[str, int], ...]], str] = field(default_factory=dict)
    scaled: dict[tuple[str, int], str] = field(default_factory=dict)


class _Emitter:
    """Writes one kernel's function."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.kernel, self.target = kernel, target
        self.buffers = {b.name: b for b in kernel.buffers}
        self.lines: list[str | list[str]] = []
        self.levels: list[_Level] = []
        self.tiles: dict[str, int] = {}
        self.values: dict[Operand, str] = {}
        self.count = 0
        self.block = "entry"
        self.instructions = Instructions(target, self.define, self.do)

    def function(self, symbol: str, linkage: str) -> str:
        names = [b.name for b in self.kernel.buffers]
        parameters = ", ".join([*(f"ptr noalias %{n}" for n in names), "i64 %begin", "i64 %end"])
        loops, body = parallel_nest(self.kernel)
        self._open(frozenset())
        if loops:
            self._parallel(loops, body)
        else:
            self._statements(body)
        self.do("ret void")
        text = "\n".join(_flattened(self.lines))
        head = f"define {linkage} void @{symbol}".replace("  ", " ")
        return f"{head}({parameters}) nounwind {{\nentry:\n{text}\n}}\n\n{_task(symbol, linkage, names)}"

    def define(self, text: str, into: list[str] | None = None) -> str:
        """Append `%n = text` to the open block, or to a loop's head, and return `%n`."""
        name = f"%t{self.count}"
        self.count += 1
        (self.lines if into is None else into).append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def _open(self, variables: frozenset[str]) -> None:
        self.levels.append(_Level(variables))
        self.lines.append(self.levels[-1].head)

    def _label(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def _parallel(self, loops: tuple[For, ...], body: tuple[Statement, ...]) -> None:
        """One loop from begin to end over the whole nest; its number is taken apart into the variables."""
        self.do("%none = icmp sge i64 %begin, %end")
        self.do("br i1 %none, label %done, label %iteration")
        self._label("iteration")
        latch: list[str] = []
        self.lines.append(latch)
        variables = frozenset(loop.variable for loop in loops)
        numbers = list(self._numbers(loops))
        for loop, number in zip(loops, numbers, strict=True):
            scaled = self.define(f"mul nsw i64 {number}, {loop.step}")
            self.do(f"{_variable(loop.variable)} = add nsw i64 {scaled}, {loop.starts[0].constant}")
        self._open(variables)
        self._statements(body)
        self.levels.pop()
        latch.append(f"  %number = phi i64 [ %begin, %entry ], [ %number.next, %{self.block} ]")
        self.do("%number.next = add nsw i64 %number, 1")
        self.do("%more = icmp slt i64 %number.next, %end")
        self.do("br i1 %more, label %iteration, label %done")
        self._label("done")

    def _numbers(self, loops: tuple[For, ...]) -> Iterator[str]:
        """The iteration number of each loop of the nest, the innermost counting fastest."""
        inner = math.prod(trip_count(loop) for loop in loops)
        rest = "%number"
        for loop in loops:
            inner //= trip_count(loop)
            if inner == 1:
                yield rest
                rest = "0"
            else:
                yield self.define(f"udiv i64 {rest}, {inner}")
                rest = self.define(f"urem i64 {rest}, {inner}")

    def _statements(self, body: Sequence[Statement]) -> None:
        for statement in body:
            if isinstance(statement, For):
                self._loop(statement)
            elif isinstance(statement, Declare):
                self._declare(statement)
            elif isinstance(statement, Let):
                self.values[Name(statement.name)] = self._instruction(statement.instruction)
            elif isinstance(statement, Assign):
                self.values[statement.target] = self._instruction(statement.instruction)
            else:
                pointer = self._pointer(statement.buffer, statement.index)
                value = self._operand(statement.value, statement.lanes)
                self.instructions.store(pointer, value, statement.lanes, statement.count)

    def _declare(self, declare: Declare) -> None:
        self.tiles[declare.tile] = declare.lanes
        for flat in range(math.prod(declare.shape)):
            index: list[int] = []
            for extent in reversed(declare.shape):
                flat, place = divmod(flat, extent)
                index.insert(0, place)
            reg = Reg(declare.tile, tuple(index))
            self.values[reg] = literal(declare.initial, declare.lanes)

    def _loop(self, loop: For) -> None:
        starts = [self._whole(start) for start in loop.starts]
        start, stop = (
            self._extreme("smax", starts),
            self._extreme("smin", [self._whole(s) for s in loop.stops]),
        )
        carried = [reg for reg in dict.fromkeys(_assigned(loop.body)) if reg in self.values]
        label, before, initial = (
            f"{loop.variable}.{self.count}",
            self.block,
            [self.values[r] for r in carried],
        )
        self.count += 1
        surely_runs = len(loop.starts) == len(loop.stops) == 1 and not (
            loop.starts[0].terms or loop.stops[0].terms
        )
        if surely_runs and trip_count(loop) == 0:
            return
        if surely_runs:
            self.do(f"br label %{label}")
        else:
            runs = self.define(f"icmp slt i64 {start}, {stop}")
            self.do(f"br i1 {runs}, label %{label}, label %{label}.exit")
        self._label(label)
        phis: list[str] = []
        self.lines.append(phis)
        for reg in carried:
            self.values[reg] = f"%{label}.{reg.tile}.{'.'.join(map(str, reg.index))}"
        entered = [self.values[reg] for reg in carried]
        self._open(frozenset({loop.variable}))
        self._statements(loop.body)
        self.levels.pop()
        self._close_loop(loop, label, before, (start, stop), phis)
        left = [self.values[reg] for reg in carried]
        for reg, name, first, last in zip(carried, entered, initial, left, strict=True):
            vector = vector_type(self.tiles[reg.tile])
            phis.append(f"  {name} = phi {vector} [ {first}, %{before} ], [ {last}, %{self.block} ]")
        latch = self.block
        self._label(f"{label}.exit")
        if surely_runs:
            return
        for reg, first, last in zip(carried, initial, left, strict=True):
            vector = vector_type(self.tiles[reg.tile])
            self.values[reg] = self.define(f"phi {vector} [ {first}, %{before} ], [ {last}, %{latch} ]")

    def _close_loop(
        self, loop: For, label: str, before: str, bounds: tuple[str, str], phis: list[str]
    ) -> None:
        """The loop variable's phi, its step, and the branch back."""
        following = self.define(f"add nsw i64 {_variable(loop.variable)}, {loop.step}")
        ways = f"[ {bounds[0]}, %{before} ], [ {following}, %{self.block} ]"
        phis.append(f"  {_variable(loop.variable)} = phi i64 {ways}")
        again = self.define(f"icmp slt i64 {following}, {bounds[1]}")
        self.do(f"br i1 {again}, label %{label}, label %{label}.exit")

    def _extreme(self, intrinsic: str, values: list[str]) -> str:
        result = values[0]
        for value in values[1:]:
            result = self.define(f"call i64 @llvm.{intrinsic}.i64(i64 {result}, i64 {value})")
        return result

    def _whole(self, expression: Affine) -> str:
        """An affine expression as an i64."""
        result = str(expression.constant)
        for variable, coefficient in expression.terms:
            part = self.define(f"mul nsw i64 {_variable(variable)}, {coefficient}")
            result = self.define(f"add nsw i64 {part}, {result}")
        return result

    def _instruction(self, instruction: Instruction) -> str:
        make = self.instructions
        if isinstance(instruction, Compute):
            operands = [self._operand(o, instruction.lanes) for o in instruction.operands]
            return make.compute(instruction.function, operands, instruction.lanes)
        if isinstance(instruction, Load):
            pointer, dtype = (
                self._pointer(instruction.buffer, instruction.index),
                self._dtype(instruction.buffer),
            )
            return make.load(pointer, dtype, instruction.lanes, instruction.count)
        if isinstance(instruction, Splat):
            pointer, dtype = (
                self._pointer(instruction.buffer, instruction.index),
                self._dtype(instruction.buffer),
            )
            return make.broadcast(make.load(pointer, dtype, 1, 1), instruction.lanes)
        if isinstance(instruction, Index):
            return make.index(self._whole(instruction.value), instruction.lanes)
        if isinstance(instruction, Reduce):
            operand = self._operand(instruction.operand, instruction.lanes)
            return make.reduce(instruction.function, operand, instruction.lanes)
        assert isinstance(instruction, Broadcast)
        return make.broadcast(self._operand(instruction.operand, 1), instruction.lanes)

    def _dtype(self, buffer: str) -> str:
        return self.buffers[buffer].dtype

    def _operand(self, operand: Operand, lanes: int) -> str:
        if isinstance(operand, Literal):
            return literal(operand.value, lanes)
        return self.values[operand]

    def _pointer(self, buffer: str, index: tuple[Affine, ...]) -> str:
        """The address of an element: the pointer of its variable part plus a constant."""
        flat = _flat_index(self.buffers[buffer], index)
        base = self._base(buffer, flat.terms)
        if flat.constant == 0:
            return base
        return self.define(f"getelementptr float, ptr {base}, i64 {flat.constant}")

    def _base(self, buffer: str, terms: tuple[tuple[str, int], ...]) -> str:
        """buffer + sum of terms, built outermost variable first, each part at the head of its loop."""
        pointer = f"%{buffer}"
        done: tuple[tuple[str, int], ...] = ()
        for level in self.levels:
            for variable, coefficient in (t for t in terms if t[0] in level.variables):
                done = (*done, (variable, coefficient))
                if (buffer, done) not in level.pointers:
                    offset = self._scaled(level, variable, coefficient)
                    level.pointers[buffer, done] = self.define(
                        f"getelementptr float, ptr {pointer}, i64 {offset}", level.head
                    )
                pointer = level.pointers[buffer, done]
        return pointer

    def _scaled(self, level: _Level, variable: str, coefficient: int) -> str:
        if coefficient == 1:
            return _variable(variable)
        if (variable, coefficient) not in level.scaled:
            product = self.define(f"mul nsw i64 {_variable(variable)}, {coefficient}", level.head)
            level.scaled[variable, coefficient] = product
        return level.scaled[variable, coefficient]


def _variable(name: str) -> str:
    """A loop variable's value; its ending keeps it apart from the buffers' names."""
    return f"%{name}.i"


def _flat_index(buffer: Buffer, index: tuple[Affine, ...]) -> Affine:
    """Offset in elements of a row-major buffer; all elements are four bytes."""
    flat, stride = Affine(), 1
    for extent, position in zip(reversed(buffer.shape), reversed(index), strict=True):
        flat, stride = flat + position * stride, stride * extent
    return flat


def _assigned(body: Iterable[Statement]) -> Iterator[Reg]:
    """Every tile element a body assigns, in loops inside it too."""
    for statement in body:
        if isinstance(statement, Assign):
            yield statement.target
        elif isinstance(statement, For):
            yield from _assigned(statement.body)


def _flattened(lines: Iterable[str | list[str]]) -> Iterator[str]:
    for line in lines:
        if isinstance(line, str):
            yield line
        else:
            yield from line


def _task(symbol: str, linkage: str, names: Sequence[str]) -> str:
    """The same kernel for the pool: its buffers come in an array of pointers."""
    lines = [f"define {linkage} void @{symbol}.task(ptr %buffers, i64 %begin, i64 %end) nounwind {{"]
    for i, name in enumerate(names):
        lines.append(f"  %{name}.at = getelementptr ptr, ptr %buffers, i64 {i}")
        lines.append(f"  %{name} = load ptr, ptr %{name}.at")
    arguments = ", ".join([*(f"ptr %{n}" for n in names), "i64 %begin", "i64 %end"])
    lines += [f"  tail call void @{symbol}({arguments})", "  ret void", "}", ""]
    return "\n".join(lines)
