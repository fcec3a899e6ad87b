"""The kernel language: loop nests over buffers, in three-address form. Frozen throughout.

Kernels are staged: Python code with a KernelBuilder (builder.py) unrolls, a `For` here runs. Loop
bounds and buffer indices are affine in loop variables, and register tiles are indexed by constants,
so bounds (bounds.py) and write conflicts (conflicts.py) are proven by interval arithmetic. Printed by
printer.py, parsed by parser.py, run by interpreter.py, turned into LLVM IR by backend/emit.py.

All arithmetic is float32 on vectors of `lanes` elements; loads from i32 buffers convert to float32.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType


@dataclass(frozen=True)
class Affine:
    """constant + sum of coefficient * variable; terms are sorted by variable and non-zero."""

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, constant: int, terms: Mapping[str, int]) -> Affine:
        return cls(constant, tuple(sorted((v, c) for v, c in terms.items() if c)))

    @classmethod
    def variable(cls, name: str) -> Affine:
        return cls(0, ((name, 1),))

    def coefficient(self, variable: str) -> int:
        return dict(self.terms).get(variable, 0)

    def substitute(self, variable: str, value: Affine) -> Affine:
        rest = Affine(self.constant, tuple(t for t in self.terms if t[0] != variable))
        return rest + value * self.coefficient(variable)

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.constant + other, self.terms) if other else self
        if not self.terms or not other.terms:
            return Affine(self.constant + other.constant, self.terms or other.terms)
        terms = dict(self.terms)
        for variable, coefficient in other.terms:
            terms[variable] = terms.get(variable, 0) + coefficient
        return Affine.of(self.constant + other.constant, terms)

    def __mul__(self, factor: int) -> Affine:
        if factor in (0, 1):
            return self if factor else Affine()
        return Affine(self.constant * factor, tuple([(v, c * factor) for v, c in self.terms]))

    def __sub__(self, other: Affine | int) -> Affine:
        return self + -other

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Affine | int) -> Affine:
        return affine(other) - self

    def __neg__(self) -> Affine:
        return self * -1


def affine(value: Affine | int) -> Affine:
    return value if isinstance(value, Affine) else Affine(value)


class Access(enum.Enum):
    READ = "read"
    WRITE = "write"
    READWRITE = "readwrite"
    STREAM = "stream"  # written only, and read so late that whole cache lines go past the caches
    SCRATCH = "scratch"


SCRATCH_ALIGNMENT = 64
"""Bytes to whose multiples scratch buffers begin: a cache line, and the widest vector."""


@dataclass(frozen=True)
class Buffer:
    """A row-major array. Distinct buffers share no element, unless both are only read.

    It is dense unless it has a `pitch`: that many elements, at least as many as the last dimension has,
    then lie between the beginnings of neighbouring rows of the last dimension, and what is between the
    rows belongs to others. Indices and bounds are those of the shape either way.

    A scratch buffer is no argument: it is memory of one iteration of the parallel nest (of the whole
    kernel if there is none), whose contents are undefined when the iteration begins.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    access: Access
    pitch: int = 0

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next, for each dimension."""
        strides = [1] if self.shape else []
        for extent in reversed(self.shape[1:]):
            strides.insert(0, self.pitch or extent if len(strides) == 1 else strides[0] * extent)
        return tuple(strides)

    @property
    def is_scratch(self) -> bool:
        return self.access is Access.SCRATCH

    @property
    def nbytes(self) -> int:
        """Elements of every dtype have four bytes."""
        return 4 * math.prod(self.shape)


def aligned_scratch(nbytes: int) -> int:
    """The next multiple of SCRATCH_ALIGNMENT."""
    return -(-nbytes // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT


@dataclass(frozen=True)
class Name:
    """An operand: the value of an earlier Let."""

    name: str


@dataclass(frozen=True)
class Reg:
    """An operand or an assignment's target: one element of a register tile, `acc[0,1]`."""

    tile: str
    index: tuple[int, ...]


@dataclass(frozen=True)
class Literal:
    """An operand: a float32 constant, splat to the lanes of the instruction that uses it."""

    value: float


Operand = Name | Reg | Literal

FUNCTIONS: Mapping[str, int] = MappingProxyType(
    {
        "copy": 1,
        "add": 2,
        "sub": 2,
        "mul": 2,
        "div": 2,
        "max": 2,  # second operand where either is NaN or they are equal, as x86 maxps
        "min": 2,
        "fma": 3,  # a * b + c, one rounding
        "sqrt": 1,
        "round": 1,  # to nearest, ties to even
        "exp2i": 1,  # 2 ** a for an integral a in -126..127
        "exponent": 1,  # unbiased exponent of a positive normal number
        "mantissa": 1,  # a / 2 ** exponent(a), in 1..2
        "select_lt": 4,  # a < b ? c : d
        "select_eq": 4,  # a == b ? c : d
    }
)
"""Arithmetic functions and their number of operands."""


@dataclass(frozen=True)
class Load:
    """`load x8 w[i, j] count 6`: `count` contiguous elements along the last dimension, then zeros."""

    buffer: str
    index: tuple[Affine, ...]
    lanes: int
    count: int


@dataclass(frozen=True)
class Splat:
    """`splat x8 x[i, j]`: one element in every lane."""

    buffer: str
    index: tuple[Affine, ...]
    lanes: int


@dataclass(frozen=True)
class Index:
    """`index x8 (i + 2)`: lane l holds float(value) + l; how a kernel sees coordinates."""

    value: Affine
    lanes: int


@dataclass(frozen=True)
class Compute:
    """`fma x8 a, b, c`: a function of FUNCTIONS, lane by lane."""

    function: str
    operands: tuple[Operand, ...]
    lanes: int


@dataclass(frozen=True)
class Reduce:
    """`reduce add x8 a`: add, max or min over the lanes of `operand`, halving pairwise; one lane out.

    Lane l is combined with lane l + lanes/2, then those halves again; `lanes` is a power of two.
    """

    function: str
    operand: Operand
    lanes: int


@dataclass(frozen=True)
class Interleave:
    """`interleave low x8 a, b`: a0, b0, a1, b1 and so on, of the lower halves of two vectors or, with `high`,
    of the upper ones. `lanes` is even."""

    half: str
    operands: tuple[Operand, Operand]
    lanes: int


@dataclass(frozen=True)
class Join:
    """`join x16 a, b`: the lanes of one vector, then those of another, of half as many lanes each."""

    operands: tuple[Operand, Operand]
    lanes: int


@dataclass(frozen=True)
class Half:
    """`half low x8 a`: the first lanes of a vector of twice as many or, with `high`, the last."""

    half: str
    operand: Operand
    lanes: int


@dataclass(frozen=True)
class Broadcast:
    """`broadcast x8 a`: a one-lane value in every lane."""

    operand: Operand
    lanes: int


@dataclass(frozen=True)
class Uniform:
    """`uniform x8 7, v0, (i + 2)`: lane l holds a random multiple of 2 ** -24 in [0, 1).

    It depends on `seed`, the bits of the one-lane value `counter`, and the number `index` + l only, as
    cnnc/ops/philox.py says.
    """

    seed: int
    counter: Operand
    index: Affine
    lanes: int


Instruction = Load | Splat | Index | Compute | Reduce | Interleave | Join | Half | Broadcast | Uniform


def result_lanes(instruction: Instruction) -> int:
    """The lanes of an instruction's value: one for a Reduce, whose `lanes` are its operand's."""
    return 1 if isinstance(instruction, Reduce) else instruction.lanes


@dataclass(frozen=True)
class Let:
    """`v0 = instruction`. Names are unique in a kernel and visible to the end of their block."""

    name: str
    instruction: Instruction


@dataclass(frozen=True)
class Declare:
    """`reg acc: f32x8[6,2] = 0.0`: a register tile, every element `initial`; lives to its block's end."""

    tile: str
    lanes: int
    shape: tuple[int, ...]
    initial: float


@dataclass(frozen=True)
class Assign:
    """`acc[0,1] = instruction`."""

    target: Reg
    instruction: Instruction


@dataclass(frozen=True)
class Store:
    """`store x8 y[i, j], v count 6`: the first `count` lanes along the last dimension."""

    buffer: str
    index: tuple[Affine, ...]
    value: Operand
    lanes: int
    count: int


@dataclass(frozen=True)
class For:
    """`for v in max(a, b)..min(c, d) step s`: from the largest `starts` up to the smallest `stops`.

    `parallel` loops may only enclose the whole rest of the kernel, one directly inside another, with
    constant bounds; their iterations may run in any order and at the same time.

    One of them may go over the images of a batch: then each iteration stands for `images` of them, and
    of the iterations only as many run as there are images when the kernel is called.
    """

    variable: str
    starts: tuple[Affine, ...]
    stops: tuple[Affine, ...]
    step: int
    body: tuple[Statement, ...]
    parallel: bool = False
    images: int = 0


@dataclass(frozen=True)
class Prefetch:
    """`prefetch x[i, j]`: asks for the cache line of an element that will be read soon, and does nothing
    else. The place may lie outside the buffer: processors ignore what cannot be fetched."""

    buffer: str
    index: tuple[Affine, ...]


Statement = Let | Declare | Assign | Store | Prefetch | For


@dataclass(frozen=True)
class Kernel:
    """A function of its buffers that are not scratch. Kernels with equal text are one kernel."""

    name: str
    buffers: tuple[Buffer, ...]
    body: tuple[Statement, ...]

    @cached_property
    def arguments(self) -> tuple[Buffer, ...]:
        """The buffers that a caller gives: all but scratch."""
        return tuple(buffer for buffer in self.buffers if not buffer.is_scratch)

    @cached_property
    def image_loop(self) -> For | None:
        """The parallel loop that goes over images; None of a kernel that always computes all of them."""
        body = self.body
        while body and isinstance(body[0], For) and body[0].parallel:
            if body[0].images:
                return body[0]
            body = body[0].body
        return None

    @cached_property
    def scratch_offsets(self) -> Mapping[str, int]:
        """Where each scratch buffer begins, in bytes from the beginning of a thread's scratch memory."""
        offsets, end = {}, 0
        for buffer in self.buffers:
            if buffer.is_scratch:
                offsets[buffer.name] = end
                end += aligned_scratch(buffer.nbytes)
        return MappingProxyType(offsets)

    @cached_property
    def scratch_bytes(self) -> int:
        """Scratch memory that a thread needs to run iterations of the kernel."""
        return sum(aligned_scratch(buffer.nbytes) for buffer in self.buffers if buffer.is_scratch)

    @cached_property
    def fingerprint(self) -> str:
        """A short text that equal kernels share and no others."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        """That of the fingerprint, which is computed once."""
        return hash(self.fingerprint)

    def buffer(self, name: str) -> Buffer:
        return next(b for b in self.buffers if b.name == name)
