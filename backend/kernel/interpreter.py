"""Runs a kernel in NumPy, lane by lane: the oracle that emitted code is compared with.

A kernel is first turned into Python closures, one for each statement, then called. All values are
float32 arrays of `lanes` elements and every operation is rounded once, so results are bit-identical to
those of native code. Accesses outside a buffer are errors here, whether bounds.py was asked or not.
Scratch buffers are made here and hold NaN whenever an iteration of a parallel loop begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from cnnc.backend.kernel.arithmetic import ARITHMETIC, F32, reduce_lanes
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
from cnnc.errors import ShapeError, VerifyError
from cnnc.ir.types import DTYPES, Array
from cnnc.ops.philox import uniform

Order = Callable[[range], Iterable[int]]
"""The order in which a parallel loop runs its iterations, such as `reversed`."""

Action = Callable[[], None]
Place = tuple[int | slice, ...]


def interpret(
    kernel: Kernel, buffers: Mapping[str, Array], order: Order = iter, images: int | None = None
) -> None:
    """Run a checked kernel on the arrays of `buffers`, by buffer name, writing its results into them.

    An array has its buffer's shape and may lie in memory as it likes.

    `order` permutes the iterations of every parallel loop, to test that their order does not matter. A loop
    over images runs for `images` of them, without a number for all.
    Raises ShapeError for a missing or unfitting array, VerifyError for an access outside a buffer.
    """
    for buffer in kernel.arguments:
        array = buffers.get(buffer.name)
        if array is None:
            raise ShapeError(f"kernel {kernel.name}: no array for buffer {buffer.name}")
        if array.shape != buffer.shape or array.dtype != DTYPES[buffer.dtype]:
            raise ShapeError(
                f"kernel {kernel.name}: buffer {buffer.name} is {buffer.dtype}{list(buffer.shape)}, "
                f"the array is {array.dtype}{list(array.shape)}"
            )
    with np.errstate(all="ignore"):
        _Machine(kernel, buffers, order, images).run()


class _Machine:
    """The state of a run; each method compiles a piece of the kernel to a closure over it."""

    def __init__(
        self, kernel: Kernel, buffers: Mapping[str, Array], order: Order, images: int | None
    ) -> None:
        self._kernel, self._images = kernel, images
        self._scratch = {b.name: np.full(b.shape, np.nan, np.float32) for b in kernel.buffers if b.is_scratch}
        self._buffers = {**buffers, **self._scratch}
        self._order = order
        self._variables: dict[str, int] = {}
        self._values: dict[str, F32] = {}

    def run(self) -> None:
        for action in self._block(self._kernel.body):
            action()

    def _block(self, statements: tuple[Statement, ...]) -> list[Action]:
        return [self._statement(statement) for statement in statements]

    def _statement(self, statement: Statement) -> Action:
        match statement:
            case Let(name, instruction):
                return self._define(name, instruction)
            case Assign(target, instruction):
                return self._define(_key(target), instruction)
            case Declare():
                return self._declare(statement)
            case Store():
                return self._store(statement)
            case Prefetch():
                return lambda: None
            case For():
                return self._for(statement)

    def _define(self, key: str, instruction: Instruction) -> Action:
        values, evaluate = self._values, self._instruction(instruction)

        def action() -> None:
            values[key] = evaluate()

        return action

    def _declare(self, declaration: Declare) -> Action:
        initial = np.full(declaration.lanes, declaration.initial, np.float32)
        tile = {_key(Reg(declaration.tile, index)): initial for index in np.ndindex(declaration.shape)}
        return lambda: self._values.update(tile)

    def _store(self, store: Store) -> Action:
        array, values = self._buffers[store.buffer], self._values
        place = self._place(store.buffer, store.index, store.count)
        key, count = self._operand(store.value, store.lanes), store.count

        def action() -> None:
            array[place()] = values[key][:count] if array.ndim else values[key][0]

        return action

    def _for(self, loop: For) -> Action:
        starts, stops = list(map(self._affine, loop.starts)), list(map(self._affine, loop.stops))
        order: Order = self._order if loop.parallel else iter
        variables, name, step, body = self._variables, loop.variable, loop.step, self._block(loop.body)
        forgotten = tuple(self._scratch.values()) if loop.parallel else ()
        if loop.images and self._images is not None:
            stops.append(self._affine(Affine(-(-self._images // loop.images))))

        def action() -> None:
            first, stop = max(start() for start in starts), min(stop() for stop in stops)
            for value in order(range(first, stop, step)):
                variables[name] = value
                for array in forgotten:
                    array.fill(np.nan)
                for statement in body:
                    statement()

        return action

    def _instruction(self, instruction: Instruction) -> Callable[[], F32]:
        match instruction:
            case Load():
                return self._load(instruction)
            case Splat(buffer, index, lanes):
                array, place = self._buffers[buffer], self._place(buffer, index, 1)
                return lambda: np.full(lanes, array[place()], np.float32)
            case Index(value, lanes):
                first, offsets = self._affine(value), np.arange(lanes, dtype=np.float32)
                return lambda: np.float32(first()) + offsets
            case Compute(function, operands, lanes):
                return self._compute(function, operands, lanes)
            case Reduce(function, operand, lanes):
                values, key = self._values, self._operand(operand, lanes)
                return lambda: reduce_lanes(function, values[key])
            case Interleave(half, operands, lanes):
                values, (a, b) = self._values, (self._operand(o, lanes) for o in operands)
                part = slice(0, lanes // 2) if half == "low" else slice(lanes // 2, lanes)
                return lambda: np.stack((values[a][part], values[b][part]), axis=1).reshape(-1)
            case Join(operands, lanes):
                values, (a, b) = self._values, (self._operand(o, lanes // 2) for o in operands)
                return lambda: np.concatenate((values[a], values[b]))
            case Half(half, operand, lanes):
                values, key = self._values, self._operand(operand, 2 * lanes)
                part = slice(0, lanes) if half == "low" else slice(lanes, None)
                return lambda: values[key][part]
            case Broadcast(operand, lanes):
                values, key = self._values, self._operand(operand, 1)
                return lambda: np.full(lanes, values[key], np.float32)
            case Uniform(seed, counter, index, lanes):
                return self._uniform(seed, self._operand(counter, 1), self._affine(index), lanes)

    def _load(self, load: Load) -> Callable[[], F32]:
        array, count, lanes = self._buffers[load.buffer], load.count, load.lanes
        place = self._place(load.buffer, load.index, count)

        def evaluate() -> F32:
            result = np.zeros(lanes, np.float32)
            result[:count] = array[place()]
            return result

        return evaluate

    def _uniform(self, seed: int, key: str, first: Callable[[], int], lanes: int) -> Callable[[], F32]:
        values, offsets = self._values, np.arange(lanes)
        return lambda: uniform(seed, values[key][0], first() + offsets)

    def _compute(self, function: str, operands: tuple[Operand, ...], lanes: int) -> Callable[[], F32]:
        values, apply = self._values, ARITHMETIC[function]
        keys = [self._operand(operand, lanes) for operand in operands]
        return lambda: apply(*[values[key] for key in keys])

    def _operand(self, operand: Operand, lanes: int) -> str:
        """The key of the operand's value; a literal is put in place once and for all."""
        if isinstance(operand, Literal):
            key = f"{operand.value!r} x{lanes}"
            self._values[key] = np.full(lanes, operand.value, np.float32)
            return key
        return _key(operand)

    def _place(self, buffer: str, index: tuple[Affine, ...], width: int) -> Callable[[], Place]:
        """The NumPy index of `width` elements along the last dimension, proven inside when it is asked."""
        shape, coordinates = self._buffers[buffer].shape, list(map(self._affine, index))
        widths = [1] * (len(shape) - 1) + [width] * min(len(shape), 1)

        def evaluate() -> Place:
            place: list[int | slice] = []
            for coordinate, extent, wide in zip(coordinates, shape, widths, strict=True):
                first = coordinate()
                if first < 0 or first + wide > extent:
                    raise self._outside(buffer, len(place), first, wide)
                place.append(slice(first, first + wide) if len(place) == len(shape) - 1 else first)
            return tuple(place)

        return evaluate

    def _outside(self, buffer: str, dimension: int, first: int, width: int) -> VerifyError:
        extent = self._buffers[buffer].shape[dimension]
        return VerifyError(
            f"kernel {self._kernel.name}: index {dimension} of {buffer} is {first}..{first + width - 1} "
            f"with {self._variables}, but the dimension has {extent} elements"
        )

    def _affine(self, expression: Affine) -> Callable[[], int]:
        variables, constant, terms = self._variables, expression.constant, expression.terms

        def evaluate() -> int:
            total = constant
            for variable, coefficient in terms:
                total += coefficient * variables[variable]
            return total

        return evaluate


def _key(operand: Name | Reg) -> str:
    return operand.name if isinstance(operand, Name) else f"{operand.tile}{list(operand.index)}"
