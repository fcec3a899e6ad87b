"""KernelBuilder: the staged way to write a kernel. Python loops unroll, `loop` makes a loop that runs.

    k = KernelBuilder("scale")
    x, y = k.buffer("x", (64, 30), Access.READ), k.buffer("y", (64, 30), Access.WRITE)
    with k.loop("row", 0, 64, parallel=True) as row:
        for start, count in ((0, 16), (16, 14)):
            v = x.load((row, start), 16, count)
            y.store((row, start), v * 2.0, count)
    kernel = k.build()

Values are `Vec` handles with operators; each operation appends one statement to the open block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cnnc.backend.kernel.ir import (
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
    affine,
)

Coordinate = Affine | int
Bound = Coordinate | Sequence[Coordinate]


@dataclass(frozen=True)
class Vec:
    """A float32 vector value; the operators emit statements into the builder's open block."""

    builder: KernelBuilder
    operand: Operand
    lanes: int

    def __add__(self, other: Vec | float) -> Vec:
        return self.builder.compute("add", self, other)

    def __sub__(self, other: Vec | float) -> Vec:
        return self.builder.compute("sub", self, other)

    def __mul__(self, other: Vec | float) -> Vec:
        return self.builder.compute("mul", self, other)

    def __truediv__(self, other: Vec | float) -> Vec:
        return self.builder.compute("div", self, other)


@dataclass(frozen=True)
class BufferHandle:
    """A buffer argument, to load from and store to. `count` defaults to all lanes."""

    builder: KernelBuilder
    buffer: Buffer

    def load(self, index: Sequence[Coordinate], lanes: int, count: int | None = None) -> Vec:
        place = tuple(map(affine, index))
        return self.builder.let(Load(self.buffer.name, place, lanes, lanes if count is None else count))

    def splat(self, index: Sequence[Coordinate], lanes: int) -> Vec:
        return self.builder.let(Splat(self.buffer.name, tuple(map(affine, index)), lanes))

    def prefetch(self, index: Sequence[Coordinate]) -> None:
        """Ask for the cache line of an element, which need not exist."""
        self.builder.append(Prefetch(self.buffer.name, tuple(map(affine, index))))

    def store(self, index: Sequence[Coordinate], value: Vec, count: int | None = None) -> None:
        place, lanes = tuple(map(affine, index)), value.lanes
        width = lanes if count is None else count
        self.builder.append(Store(self.buffer.name, place, value.operand, lanes, width))


@dataclass(frozen=True)
class Tile:
    """A register tile: `tile[i, j]` reads, `tile[i, j] = vec` assigns; indices are constants."""

    builder: KernelBuilder
    name: str
    lanes: int

    def __getitem__(self, index: tuple[int, ...]) -> Vec:
        return Vec(self.builder, Reg(self.name, index), self.lanes)

    def __setitem__(self, index: tuple[int, ...], value: Vec) -> None:
        self.builder.assign(Reg(self.name, index), value)


class KernelBuilder:
    """Collects buffers and statements; `build` freezes them into a Kernel."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._buffers: list[Buffer] = []
        self._blocks: list[list[Statement]] = [[]]
        self._names: dict[str, int] = {}

    def buffer(
        self, name: str, shape: Sequence[int], access: Access, dtype: str = "f32", pitch: int = 0
    ) -> BufferHandle:
        buffer = Buffer(name, dtype, tuple(shape), access, pitch)
        self._buffers.append(buffer)
        return BufferHandle(self, buffer)

    def scratch(self, name: str, shape: Sequence[int]) -> BufferHandle:
        """Memory of one iteration of the parallel nest, undefined when the iteration begins."""
        return self.buffer(name, shape, Access.SCRATCH)

    @contextmanager
    def loop(
        self, name: str, start: Bound, stop: Bound, step: int = 1, parallel: bool = False, images: int = 0
    ) -> Iterator[Affine]:
        """A loop that runs; a sequence of starts means their maximum, of stops their minimum."""
        variable = self._fresh(name)
        self._blocks.append([])
        yield Affine.variable(variable)
        body = tuple(self._blocks.pop())
        self.append(For(variable, _bound(start), _bound(stop), step, body, parallel, images))

    @contextmanager
    def once_or_loop(
        self, name: str, extent: int, parallel: bool = False, images: int = 0
    ) -> Iterator[Affine]:
        """A loop over 0..extent; no loop at all for an extent of 1."""
        if extent == 1:
            yield affine(0)
            return
        with self.loop(name, 0, extent, parallel=parallel, images=images) as variable:
            yield variable

    def unrolled(self, name: str, stop: int, factor: int, body: Callable[[Affine], None]) -> None:
        """`body(i)` for i in 0..stop: a loop of `factor` copies, then the remainder unrolled."""
        whole = stop - stop % factor
        if whole > factor:
            with self.loop(name, 0, whole, factor) as i:
                for copy in range(factor):
                    body(i + copy)
        else:
            whole = 0
        for rest in range(whole, stop):
            body(affine(rest))

    def register(self, name: str, lanes: int, shape: Sequence[int], initial: float = 0.0) -> Tile:
        tile = self._fresh(name)
        self.append(Declare(tile, lanes, tuple(shape), initial))
        return Tile(self, tile, lanes)

    def compute(self, function: str, *operands: Vec | float) -> Vec:
        """A function of ir.FUNCTIONS; at least one operand is a Vec and gives the lanes."""
        lanes = next(o.lanes for o in operands if isinstance(o, Vec))
        return self.let(Compute(function, tuple(map(_operand, operands)), lanes))

    def fma(self, a: Vec | float, b: Vec | float, c: Vec | float) -> Vec:
        return self.compute("fma", a, b, c)

    def max(self, a: Vec | float, b: Vec | float) -> Vec:
        return self.compute("max", a, b)

    def min(self, a: Vec | float, b: Vec | float) -> Vec:
        return self.compute("min", a, b)

    def constant(self, value: float, lanes: int) -> Vec:
        return Vec(self, Literal(value), lanes)

    def index(self, value: Coordinate, lanes: int) -> Vec:
        return self.let(Index(affine(value), lanes))

    def uniform(self, seed: int, counter: Vec, index: Coordinate, lanes: int) -> Vec:
        """Random numbers in [0, 1) for the elements from `index` on; `counter` has one lane."""
        return self.let(Uniform(seed, counter.operand, affine(index), lanes))

    def reduce(self, function: str, value: Vec) -> Vec:
        reduced = self.let(Reduce(function, value.operand, value.lanes))
        return Vec(self, reduced.operand, 1)

    def transposed(self, rows: Sequence[Vec], edge: int) -> list[Vec]:
        """The columns of a square of `edge` rows of as many lanes, a power of two. Rows behind the last that
        is given are zero.

        Interleaving the upper rows with the lower ones turns the bits of (row, lane) by one place; turned
        often enough, row and lane have changed places.
        """
        half, count = edge // 2, edge
        rows = [*rows, *[self.constant(0.0, edge)] * (edge - len(rows))]
        while count > 1:
            pairs = list(zip(rows[:half], rows[half:], strict=True))
            rows = [self.interleave(part, a, b) for a, b in pairs for part in ("low", "high")]
            count //= 2
        return rows

    def reduce_each(self, function: str, rows: Sequence[Vec]) -> Vec:
        """What `reduce` makes of each of up to as many vectors as they have lanes, one beside the other; the
        lanes behind the last are those of zeros. In the same order, so with the same bits.

        Halves of two vectors interleaved and added are one with half of the lanes of each: a transposition
        that adds up on its way.
        """
        lanes = rows[0].lanes
        rows = [*rows, *[self.constant(0.0, lanes)] * (lanes - len(rows))]
        while len(rows) > 1:
            pairs = zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True)
            halves = [[self.interleave(part, a, b) for part in ("low", "high")] for a, b in pairs]
            rows = [self.compute(function, low, high) for low, high in halves]
        return rows[0]

    def interleave(self, half: str, a: Vec, b: Vec) -> Vec:
        """Lanes of two vectors in turn, of the halves `low` or `high`."""
        return self.let(Interleave(half, (a.operand, b.operand), a.lanes))

    def join(self, a: Vec, b: Vec) -> Vec:
        """The lanes of `a`, then those of `b`."""
        return self.let(Join((a.operand, b.operand), 2 * a.lanes))

    def halves(self, value: Vec) -> tuple[Vec, Vec]:
        """What was joined."""
        low, high = (self.let(Half(half, value.operand, value.lanes // 2)) for half in ("low", "high"))
        return low, high

    def broadcast(self, value: Vec, lanes: int) -> Vec:
        return self.let(Broadcast(value.operand, lanes))

    def let(self, instruction: Instruction) -> Vec:
        name = self._fresh("v")
        self.append(Let(name, instruction))
        return Vec(self, Name(name), instruction.lanes)

    def assign(self, target: Reg, value: Vec) -> None:
        """Assign a value; the instruction that made it, if it was the last statement, moves in."""
        last = self._blocks[-1][-1] if self._blocks[-1] else None
        if isinstance(last, Let) and value.operand == Name(last.name):
            self._blocks[-1][-1] = Assign(target, last.instruction)
        else:
            self.append(Assign(target, Compute("copy", (value.operand,), value.lanes)))

    def append(self, statement: Statement) -> None:
        self._blocks[-1].append(statement)

    def build(self) -> Kernel:
        (body,) = self._blocks
        return Kernel(self._name, tuple(self._buffers), tuple(body))

    def _fresh(self, stem: str) -> str:
        count = self._names.get(stem, 0)
        self._names[stem] = count + 1
        return f"{stem}{count}" if stem == "v" or count else stem


def _bound(bound: Bound) -> tuple[Affine, ...]:
    return tuple(map(affine, bound)) if isinstance(bound, Sequence) else (affine(bound),)


def _operand(value: Vec | float) -> Operand:
    return value.operand if isinstance(value, Vec) else Literal(float(value))
