"""The rules of the kernel language, checked on every kernel before anything else reads it.

Structure only: names, scopes, lanes, ranks, access and the place of parallel loops. That indices stay
inside buffers is bounds.py's proof, that parallel iterations do not meet is conflicts.py's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cnnc.backend.kernel.ir import (
    FUNCTIONS,
    Access,
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
    result_lanes,
)
from cnnc.backend.kernel.printer import headline
from cnnc.backend.kernel.tokens import is_name
from cnnc.errors import VerifyError

LARGEST = float.fromhex("0x1.fffffep+127")
"""The largest finite float32."""


def check_kernel(kernel: Kernel) -> None:
    """Raise VerifyError, naming kernel and statement, where a rule of the kernel language is broken."""
    try:
        _check_signature(kernel)
        _check_parallel(kernel.body, allowed=True)
        _check_block(kernel.body, _Scope({buffer.name: buffer for buffer in kernel.buffers}))
    except VerifyError as error:
        raise VerifyError(f"kernel {kernel.name}: {error}") from None


@dataclass
class _Scope:
    """What a statement can see: copied for every inner block, `taken` shared by the whole kernel."""

    buffers: Mapping[str, Buffer]
    loops: set[str] = field(default_factory=set)
    values: dict[str, int] = field(default_factory=dict)
    tiles: dict[str, Declare] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def inner(self) -> _Scope:
        return _Scope(self.buffers, set(self.loops), dict(self.values), dict(self.tiles), self.taken)

    def claim(self, name: str) -> None:
        if name in self.taken:
            raise VerifyError(f"the name {name} is already used")
        if not is_name(name):
            raise VerifyError(f"{name!r} is not a name")
        self.taken.add(name)


def _require(condition: bool, problem: str) -> None:
    """For what is checked seldom: the problem is put in words even where there is none."""
    if not condition:
        raise VerifyError(problem)


def _check_signature(kernel: Kernel) -> None:
    _require(is_name(kernel.name), f"{kernel.name!r} is not a name")
    names = [buffer.name for buffer in kernel.buffers]
    for buffer in kernel.buffers:
        _require(is_name(buffer.name), f"buffer {buffer.name!r}: not a name")
        _require(names.count(buffer.name) == 1, f"buffer {buffer.name}: declared more than once")
        _require(
            buffer.dtype in {"f32", "i32"}, f"buffer {buffer.name}: dtype {buffer.dtype}, not f32 or i32"
        )
        _require(min(buffer.shape, default=1) > 0, f"buffer {buffer.name}: shape {buffer.shape}")
        is_pitched = bool(buffer.shape) and not buffer.is_scratch and buffer.pitch >= buffer.shape[-1]
        _require(is_pitched or not buffer.pitch, f"buffer {buffer.name}: pitch {buffer.pitch}")
        is_float = buffer.dtype == "f32" or not buffer.is_scratch
        _require(is_float, f"buffer {buffer.name}: scratch memory is f32, not {buffer.dtype}")


def _check_parallel(block: tuple[Statement, ...], allowed: bool) -> None:
    """Parallel loops are the only statement of the kernel, or of a parallel loop."""
    for loop in block:
        if not isinstance(loop, For):
            continue
        if loop.parallel:
            _require(allowed and len(block) == 1, f"{headline(loop)}: does not enclose the whole kernel")
            constant = not any(bound.terms for bound in (*loop.starts, *loop.stops))
            _require(constant, f"{headline(loop)}: the bounds of a parallel loop must be constants")
        _check_images(loop)
        _check_parallel(loop.body, allowed and loop.parallel)


def _check_images(loop: For) -> None:
    """A loop over images is parallel, counts from 0 in steps of 1, and has none like it inside."""
    _require(loop.images >= 0, f"{headline(loop)}: an iteration stands for {loop.images} images")
    if not loop.images:
        return
    _require(loop.parallel, f"{headline(loop)}: a loop over images is parallel")
    counts = loop.starts == (Affine(),) and loop.step == 1
    _require(counts, f"{headline(loop)}: a loop over images counts from 0 in steps of 1")
    inner = loop
    while inner.body and isinstance(inner.body[0], For) and inner.body[0].parallel:
        inner = inner.body[0]
        _require(not inner.images, f"{headline(inner)}: inside another loop over images")


def _check_block(block: tuple[Statement, ...], scope: _Scope) -> None:
    for statement in block:
        try:
            _check_statement(statement, scope)
        except VerifyError as error:
            raise VerifyError(f"{headline(statement)}: {error}") from None
        if isinstance(statement, For):
            inner = scope.inner()
            inner.loops.add(statement.variable)
            _check_block(statement.body, inner)


def _check_statement(statement: Statement, scope: _Scope) -> None:
    match statement:
        case Let(name, instruction):
            _check_instruction(instruction, scope)
            scope.claim(name)
            scope.values[name] = result_lanes(instruction)
        case Declare(tile, lanes, shape, initial):
            scope.claim(tile)
            _require(min(shape, default=1) > 0, "every extent of a tile is at least 1")
            _check_lanes(lanes)
            _check_literal(initial)
            scope.tiles[tile] = statement
        case Assign(target, instruction):
            _check_instruction(instruction, scope)
            _check_operand(target, result_lanes(instruction), scope)
        case Store(buffer, index, value, lanes, count):
            _check_access(buffer, index, lanes, count, scope)
            _check_stored(buffer, scope)
            _check_operand(value, lanes, scope)
        case Prefetch(buffer, index):
            _check_access(buffer, index, 1, 1, scope)
        case For(variable, starts, stops, step):
            _require(bool(starts) and bool(stops), "a loop has at least one start and one stop")
            _require(step >= 1, "the step is at least 1")
            for bound in (*starts, *stops):
                _check_affine(bound, scope)
            scope.claim(variable)


def _check_instruction(instruction: Instruction, scope: _Scope) -> None:
    match instruction:
        case Load(buffer, index, lanes, count):
            _check_access(buffer, index, lanes, count, scope)
            _check_loaded(buffer, scope)
        case Splat(buffer, index, lanes):
            _check_access(buffer, index, lanes, 1, scope)
            _check_loaded(buffer, scope)
        case Index(value, lanes):
            _check_lanes(lanes)
            _check_affine(value, scope)
        case Compute(function, operands, lanes):
            _check_lanes(lanes)
            _check_arity(function, len(operands))
            for operand in operands:
                _check_operand(operand, lanes, scope)
        case Reduce(function, operand, lanes):
            _check_lanes(lanes)
            _require(lanes & (lanes - 1) == 0, "the lanes of a reduction are a power of two")
            _require(function in {"add", "max", "min"}, f"{function} is not add, max or min")
            _check_operand(operand, lanes, scope)
        case Interleave(half, operands, lanes):
            _check_lanes(lanes)
            _require(lanes % 2 == 0, "the lanes of vectors that are interleaved are even")
            _check_half(half)
            for operand in operands:
                _check_operand(operand, lanes, scope)
        case Join(operands, lanes):
            _check_parts(lanes // 2)
            for operand in operands:
                _check_operand(operand, lanes // 2, scope)
        case Half(half, operand, lanes):
            _check_parts(lanes)
            _check_half(half)
            _check_operand(operand, 2 * lanes, scope)
        case Broadcast(operand, lanes):
            _check_lanes(lanes)
            _check_operand(operand, 1, scope)
        case Uniform(seed, counter, index, lanes):
            _check_lanes(lanes)
            _require(0 <= seed < 2**32, f"the seed {seed} is no number of 32 bits")
            _check_operand(counter, 1, scope)
            _check_affine(index, scope)


def _check_arity(function: str, count: int) -> None:
    if function not in FUNCTIONS:
        raise VerifyError(f"there is no function {function}")
    if count != FUNCTIONS[function]:
        raise VerifyError(f"{function} takes {FUNCTIONS[function]} operands, not {count}")


def _check_lanes(lanes: int) -> None:
    _require(lanes >= 1, "there is at least 1 lane")


def _check_parts(lanes: int) -> None:
    _require(lanes > 1, "halves of a vector have more than 1 lane")


def _check_half(half: str) -> None:
    _require(half in {"low", "high"}, f"{half} is not low or high")


def _check_operand(operand: Operand, lanes: int, scope: _Scope) -> None:
    """The operand is visible here and has that many lanes; a literal has any number."""
    match operand:
        case Literal(value):
            _check_literal(value)
            return
        case Name(name):
            if name not in scope.values:
                raise VerifyError(f"there is no value {name} here")
            found = scope.values[name]
        case Reg(tile, index):
            if tile not in scope.tiles:
                raise VerifyError(f"there is no tile {tile} here")
            _check_element(index, scope.tiles[tile])
            found = scope.tiles[tile].lanes
    if found != lanes:
        raise VerifyError(f"an operand has {found} lanes where {lanes} are needed")


def _check_element(index: tuple[int, ...], tile: Declare) -> None:
    shape = tile.shape
    if len(index) != len(shape) or not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
        raise VerifyError(f"index {list(index)} is outside tile {tile.tile} of shape {list(shape)}")


def _check_literal(value: float) -> None:
    if not (abs(value) <= LARGEST or math.isinf(value)):
        raise VerifyError(f"{value!r} is not a float32 number")


def _check_affine(expression: Affine, scope: _Scope) -> None:
    terms = expression.terms
    for variable, _ in terms:
        if variable not in scope.loops:
            raise VerifyError(f"there is no loop variable {variable} here")
    if terms and terms != Affine.of(0, dict(terms)).terms:
        raise VerifyError("the terms of an index are sorted, unique and not zero")


def _check_access(buffer: str, index: tuple[Affine, ...], lanes: int, count: int, scope: _Scope) -> None:
    if buffer not in scope.buffers:
        raise VerifyError(f"there is no buffer {buffer}; the kernel has {', '.join(scope.buffers)}")
    shape = scope.buffers[buffer].shape
    if len(index) != len(shape):
        raise VerifyError(f"{len(index)} indices for {buffer} of rank {len(shape)}")
    _check_lanes(lanes)
    if not 1 <= count <= lanes:
        raise VerifyError(f"count {count} is outside 1..{lanes}")
    if not shape and count != 1:
        raise VerifyError(f"count {count} for {buffer}, which is a scalar")
    for expression in index:
        _check_affine(expression, scope)


def _check_loaded(buffer: str, scope: _Scope) -> None:
    if scope.buffers[buffer].access in (Access.WRITE, Access.STREAM):
        raise VerifyError(f"{buffer} may only be written")


def _check_stored(buffer: str, scope: _Scope) -> None:
    stored = scope.buffers[buffer]
    if stored.access is Access.READ:
        raise VerifyError(f"{buffer} may only be read")
    if stored.dtype != "f32":
        raise VerifyError(f"{buffer} is {stored.dtype}, stores go to f32 buffers")
