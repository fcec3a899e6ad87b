"""Kernels as LLVM IR text: loops become blocks, register tiles SSA values, affine indices pointers.

The text is made so that little is left to optimize. Each loop carries the tiles it assigns in phis,
and an access is a pointer per loop nest plus a constant offset: the part of an index that depends on
an outer loop is added once, at the head of that loop's body.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cnnc.backend.instructions import Instructions, literal, vector_type
from cnnc.backend.kernel.ir import (
    Affine,
    Assign,
    Broadcast,
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
from cnnc.backend.kernel.lines import WholeLines, flat_index
from cnnc.backend.kernel.nest import first_value, has_constant_bounds, parallel_nest, trip_count
from cnnc.backend.target import Target

SCRATCH = "%scratch"
"""The parameter that holds a thread's scratch memory. Names of kernels end otherwise, so none is it."""

_RANGE = ("i64 %begin", "i64 %end", "i64 %images")
"""The parameters that say which iterations to run, and of how many images."""


def kernel_symbol(kernel: Kernel) -> str:
    """The name of a kernel's function, which equal kernels share."""
    return f"kernel_{kernel.name}_{kernel.fingerprint}"


def emit_kernel(kernel: Kernel, target: Target, linkage: str = "") -> str:
    """`void @symbol(ptr arguments..., i64 begin, i64 end, i64 images, ptr scratch)`, which runs those
    iterations of the parallel nest, and `@symbol.task(ptr arguments, i64 begin, i64 end, i64 images, ptr
    scratch)`, the same for the fork-join pool. The iterations are those of the nest for `images` images.
    `scratch` is the calling thread's; null will do for a kernel without scratch buffers."""
    return _Emitter(kernel, target).function(kernel_symbol(kernel), linkage)


_Terms = tuple[tuple[str, int], ...]


@dataclass
class _Level:
    """The function or a loop body while it is written: what its head holds, and what is cached there.

    `pointers` are those that the head computes, `bases` all that were asked for in the body.
    """

    variables: frozenset[str]
    head: list[str] = field(default_factory=list)
    pointers: dict[tuple[str, _Terms], str] = field(default_factory=dict)
    bases: dict[tuple[str, _Terms], str] = field(default_factory=dict)
    scaled: dict[tuple[str, int], str] = field(default_factory=dict)


class _Emitter:
    """Writes one kernel's function."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.kernel, self.target = kernel, target
        self.dtypes = {b.name: b.dtype for b in kernel.buffers}
        self.strides = {b.name: b.strides for b in kernel.buffers}
        self.whole_lines = WholeLines(kernel)
        self.lines: list[str | list[str]] = []
        self.levels: list[_Level] = []
        self.tiles: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.values: dict[Reg, str] = {}
        self.count = 0
        self.block = "entry"
        self.instructions = Instructions(target, self.define, self.do)

    def function(self, symbol: str, linkage: str) -> str:
        names = [_buffer(b.name) for b in self.kernel.arguments]
        loops, body = parallel_nest(self.kernel)
        self._open(frozenset())
        for name, offset in self.kernel.scratch_offsets.items():
            self.do(f"{_buffer(name)} = getelementptr i8, ptr {SCRATCH}, i64 {offset}")
        if loops:
            self._parallel(loops, body)
        else:
            self._statements(body)
        if self.whole_lines:
            self.instructions.fence()
        self.do("ret void")
        text = "\n".join(_flattened(self.lines))
        head = f"define {linkage} void @{symbol}".replace("  ", " ")
        buffers = [f"ptr noalias {n}" for n in (*names, SCRATCH)]
        parameters = ", ".join([*buffers[:-1], *_RANGE, buffers[-1]])
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
            self.do(f"{_variable(loop.variable)} = add nsw i64 {scaled}, {first_value(loop)}")
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
        rest = "%number"
        for position in range(len(loops)):
            inner = self._iterations(loops[position + 1 :])
            if inner == "1":
                yield rest
                rest = "0"
            else:
                yield self.define(f"udiv i64 {rest}, {inner}")
                rest = self.define(f"urem i64 {rest}, {inner}")

    def _iterations(self, loops: tuple[For, ...]) -> str:
        """Iterations of inner loops of the nest: a constant, but for a loop over images."""
        constant = math.prod(max(1, trip_count(loop)) for loop in loops if not loop.images)
        images = next((loop.images for loop in loops if loop.images), 0)
        if not images:
            return str(constant)
        head = self.levels[0].head
        above = self.define(f"add nuw nsw i64 %images, {images - 1}", head)
        trips = self.define(f"udiv i64 {above}, {images}", head)
        return self.define(f"mul nuw nsw i64 {trips}, {constant}", head)

    def _statements(self, body: Sequence[Statement], loop: For | None = None) -> None:
        streamed = self.whole_lines.of(body, loop)
        for statement in body:
            if isinstance(statement, For):
                self._loop(statement)
            elif isinstance(statement, Declare):
                self._declare(statement)
            elif isinstance(statement, Let):
                self.names[statement.name] = self._instruction(statement.instruction)
            elif isinstance(statement, Assign):
                self.values[statement.target] = self._instruction(statement.instruction)
            elif isinstance(statement, Prefetch):
                self.instructions.prefetch(self._pointer(statement.buffer, statement.index))
            else:
                self._store(statement, statement in streamed)

    def _store(self, store: Store, is_streamed: bool) -> None:
        pointer = self._pointer(store.buffer, store.index)
        value = self._operand(store.value, store.lanes)
        if is_streamed:
            self.instructions.stream(pointer, value, store.lanes)
        else:
            self.instructions.store(pointer, value, store.lanes, store.count)

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
        """A tile element assigned inside is a phi of what it was before and what an iteration left."""
        surely_runs = has_constant_bounds(loop)
        if surely_runs and trip_count(loop) == 0:
            return
        bounds = self._extreme("smax", loop.starts), self._extreme("smin", loop.stops)
        carried = [reg for reg in dict.fromkeys(_assigned(loop.body)) if reg in self.values]
        initial = [self.values[reg] for reg in carried]
        label, before = f"{loop.variable}.{self.count}", self.block
        self.count += 1
        self._enter_loop(label, bounds, surely_runs)
        phis: list[str] = []
        self.lines.append(phis)
        entered = [f"%{label}.{reg.tile}.{'.'.join(map(str, reg.index))}" for reg in carried]
        self.values.update(zip(carried, entered, strict=True))
        self._open(frozenset({loop.variable}))
        self._statements(loop.body, loop)
        self.levels.pop()
        self._close_loop(loop, label, before, bounds, phis)
        left, latch = [self.values[reg] for reg in carried], self.block
        ways = [
            f"phi {vector_type(self.tiles[reg.tile])} [ {first}, %{before} ], [ {last}, %{latch} ]"
            for reg, first, last in zip(carried, initial, left, strict=True)
        ]
        phis += [f"  {name} = {way}" for name, way in zip(entered, ways, strict=True)]
        self._label(f"{label}.exit")
        if not surely_runs:
            self.values.update((reg, self.define(way)) for reg, way in zip(carried, ways, strict=True))

    def _enter_loop(self, label: str, bounds: tuple[str, str], surely_runs: bool) -> None:
        """Branch to the body, or past it."""
        if surely_runs:
            self.do(f"br label %{label}")
        else:
            runs = self.define(f"icmp slt i64 {bounds[0]}, {bounds[1]}")
            self.do(f"br i1 {runs}, label %{label}, label %{label}.exit")
        self._label(label)

    def _close_loop(
        self, loop: For, label: str, before: str, bounds: tuple[str, str], phis: list[str]
    ) -> None:
        """The loop variable's phi, its step, and the branch back."""
        following = self.define(f"add nsw i64 {_variable(loop.variable)}, {loop.step}")
        ways = f"[ {bounds[0]}, %{before} ], [ {following}, %{self.block} ]"
        phis.append(f"  {_variable(loop.variable)} = phi i64 {ways}")
        again = self.define(f"icmp slt i64 {following}, {bounds[1]}")
        self.do(f"br i1 {again}, label %{label}, label %{label}.exit")

    def _extreme(self, intrinsic: str, bounds: Iterable[Affine]) -> str:
        first, *others = map(self._whole, bounds)
        for other in others:
            first = self.define(f"call i64 @llvm.{intrinsic}.i64(i64 {first}, i64 {other})")
        return first

    def _whole(self, expression: Affine) -> str:
        """An affine expression as an i64."""
        result = str(expression.constant)
        for variable, coefficient in expression.terms:
            part = self.define(f"mul nsw i64 {_variable(variable)}, {coefficient}")
            result = self.define(f"add nsw i64 {part}, {result}")
        return result

    def _instruction(self, instruction: Instruction) -> str:
        make = self.instructions
        match instruction:
            case Compute(function, operands, lanes):
                return make.compute(function, self._operands(operands, lanes), lanes)
            case Load(buffer, index, lanes, count):
                return self._load(buffer, index, lanes, count)
            case Splat(buffer, index, lanes):
                return make.broadcast(self._load(buffer, index, 1, 1), lanes)
            case Interleave(half, operands, lanes):
                return make.interleave(half, self._operands(operands, lanes), lanes)
            case Join(operands, lanes):
                return make.join(self._operands(operands, lanes // 2), lanes)
            case Half(half, operand, lanes):
                return make.half(half, self._operand(operand, 2 * lanes), lanes)
            case Index(value, lanes):
                return make.index(self._whole(value), lanes)
            case Reduce(function, operand, lanes):
                return make.reduce(function, self._operand(operand, lanes), lanes)
            case Uniform(seed, counter, index, lanes):
                return make.uniform(seed, self._operand(counter, 1), self._whole(index), lanes)
            case Broadcast(operand, lanes):
                return make.broadcast(self._operand(operand, 1), lanes)

    def _operands(self, operands: Iterable[Operand], lanes: int) -> list[str]:
        return [self._operand(operand, lanes) for operand in operands]

    def _load(self, buffer: str, index: tuple[Affine, ...], lanes: int, count: int) -> str:
        return self.instructions.load(self._pointer(buffer, index), self.dtypes[buffer], lanes, count)

    def _operand(self, operand: Operand, lanes: int) -> str:
        if isinstance(operand, Name):
            return self.names[operand.name]
        if isinstance(operand, Literal):
            return literal(operand.value, lanes)
        return self.values[operand]

    def _pointer(self, buffer: str, index: tuple[Affine, ...]) -> str:
        """The address of an element: the pointer of its variable part plus a constant."""
        flat = flat_index(self.strides[buffer], index)
        known, key = self.levels[-1].bases, (buffer, flat.terms)
        base = known.get(key)
        if base is None:
            base = known[key] = self._base(buffer, flat.terms)
        if flat.constant == 0:
            return base
        return self.define(f"getelementptr float, ptr {base}, i64 {flat.constant}")

    def _base(self, buffer: str, terms: _Terms) -> str:
        """buffer + sum of terms, built outermost variable first, each part at the head of its loop."""
        pointer = _buffer(buffer)
        done: _Terms = ()
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
    """A loop variable's value. What the emitter itself names ends otherwise."""
    return f"%{name}.i"


def _buffer(name: str) -> str:
    """A buffer's address. What the emitter itself names ends otherwise."""
    return f"%{name}.p"


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
    parameters = f"(ptr %buffers, {', '.join(_RANGE)}, ptr {SCRATCH})"
    lines = [f"define {linkage} void @{symbol}.task{parameters} nounwind {{"]
    for i, name in enumerate(names):
        lines.append(f"  {name}.at = getelementptr ptr, ptr %buffers, i64 {i}")
        lines.append(f"  {name} = load ptr, ptr {name}.at")
    arguments = ", ".join([*(f"ptr {n}" for n in names), *_RANGE, f"ptr {SCRATCH}"])
    lines += [f"  tail call void @{symbol}({arguments})", "  ret void", "}", ""]
    return "\n".join(lines)
