"""One kernel-language instruction as LLVM IR text. emit.py owns blocks and loops, this file arithmetic."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cnnc.backend.target import Target
from cnnc.ops.philox import KEY_STEP, MULTIPLIER, ROUNDS, WORD

_BINARY: Mapping[str, str] = MappingProxyType({"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"})
_COMPARED: Mapping[str, str] = MappingProxyType(
    {"max": "ogt", "min": "olt", "select_lt": "olt", "select_eq": "oeq"}
)
ROUNDING_MAGIC = 2.0**23
"""Added to and taken from a positive float32 below itself it leaves the nearest whole number, ties to
even; from there on every float32 is a whole number."""


def vector_type(lanes: int, element: str = "float") -> str:
    return element if lanes == 1 else f"<{lanes} x {element}>"


def literal(value: float, lanes: int) -> str:
    """A float32 constant: LLVM writes it as the bits of the double of the same value."""
    single = struct.unpack("f", struct.pack("f", value))[0] if abs(value) < 3.5e38 else value
    bits = struct.unpack("Q", struct.pack("d", single))[0]
    return f"0x{bits:016X}" if lanes == 1 else f"splat (float 0x{bits:016X})"


def lane_numbers(lanes: int) -> str:
    """The constant 0, 1, 2, ... of a float vector."""
    if lanes == 1:
        return literal(0.0, 1)
    return "<" + ", ".join(f"float {literal(float(i), 1)}" for i in range(lanes)) + ">"


def splat(value: int, lanes: int, element: str) -> str:
    """An integer constant in every lane."""
    return str(value) if lanes == 1 else f"splat ({element} {value})"


def counting(lanes: int, element: str) -> str:
    """The constant 0, 1, 2, ... of a vector of integers."""
    return "0" if lanes == 1 else "<" + ", ".join(f"{element} {i}" for i in range(lanes)) + ">"


def mask(lanes: int, count: int) -> str:
    """A constant that is true for the first `count` lanes."""
    return "<" + ", ".join(f"i1 {'true' if i < count else 'false'}" for i in range(lanes)) + ">"


def shuffle_mask(indices: Sequence[int]) -> str:
    return f"<{len(indices)} x i32> <" + ", ".join(f"i32 {i}" for i in indices) + ">"


@dataclass(frozen=True)
class Instructions:
    """Writes instructions through `define(text) -> name`, which appends `%name = text`."""

    target: Target
    define: Callable[[str], str]
    do: Callable[[str], None]

    def compute(self, function: str, operands: Sequence[str], lanes: int) -> str:
        """A function of the kernel language; see ir.FUNCTIONS for what each means."""
        vector = vector_type(lanes)
        if function == "copy":
            return operands[0]
        if function in _BINARY:
            return self.define(f"{_BINARY[function]} {vector} {operands[0]}, {operands[1]}")
        if function in _COMPARED:
            chosen = operands if function in ("max", "min") else operands[2:]
            return self._select(_COMPARED[function], operands[0], operands[1], chosen, lanes)
        if function == "fma":
            return self._fma(operands, lanes)
        if function == "sqrt":
            return self._intrinsic("sqrt", operands, lanes)
        if function == "round":
            return self._round(operands[0], lanes)
        return self._bits(function, operands[0], lanes)

    def _select(self, condition: str, a: str, b: str, chosen: Sequence[str], lanes: int) -> str:
        vector = vector_type(lanes)
        test = self.define(f"fcmp {condition} {vector} {a}, {b}")
        return self.define(
            f"select {vector_type(lanes, 'i1')} {test}, {vector} {chosen[0]}, {vector} {chosen[1]}"
        )

    def _fma(self, operands: Sequence[str], lanes: int) -> str:
        if self.target.has_fma:
            return self._intrinsic("fma", operands, lanes)
        product = self.define(f"fmul {vector_type(lanes)} {operands[0]}, {operands[1]}")
        return self.define(f"fadd {vector_type(lanes)} {product}, {operands[2]}")

    def _round(self, operand: str, lanes: int) -> str:
        if self.target.has_round:
            return self._intrinsic("roundeven", [operand], lanes)
        vector, magic = vector_type(lanes), literal(ROUNDING_MAGIC, lanes)
        size = self._intrinsic("fabs", [operand], lanes)
        shifted = self.define(f"fadd {vector} {size}, {magic}")
        whole = self.define(f"fsub {vector} {shifted}, {magic}")
        signed = self._intrinsic("copysign", [whole, operand], lanes)
        return self._select("olt", size, magic, (signed, operand), lanes)

    def _intrinsic(self, name: str, operands: Sequence[str], lanes: int) -> str:
        vector = vector_type(lanes)
        suffix = "f32" if lanes == 1 else f"v{lanes}f32"
        arguments = ", ".join(f"{vector} {operand}" for operand in operands)
        return self.define(f"call {vector} @llvm.{name}.{suffix}({arguments})")

    def _bits(self, function: str, operand: str, lanes: int) -> str:
        """exp2i, exponent and mantissa, by the fields of the float32."""
        vector, whole = vector_type(lanes), vector_type(lanes, "i32")

        def constant(value: int) -> str:
            return splat(value, lanes, "i32")

        if function == "exp2i":
            power = self.define(f"fptosi {vector} {operand} to {whole}")
            frozen = self.define(f"freeze {whole} {power}")  # a NaN has no integer, but any will do
            biased = self.define(f"add {whole} {frozen}, {constant(127)}")
            field = self.define(f"shl {whole} {biased}, {constant(23)}")
            return self.define(f"bitcast {whole} {field} to {vector}")
        bits = self.define(f"bitcast {vector} {operand} to {whole}")
        if function == "mantissa":
            fraction = self.define(f"and {whole} {bits}, {constant(0x7FFFFF)}")
            field = self.define(f"or {whole} {fraction}, {constant(0x3F800000)}")
            return self.define(f"bitcast {whole} {field} to {vector}")
        assert function == "exponent", function
        field = self.define(f"lshr {whole} {bits}, {constant(23)}")
        unbiased = self.define(f"sub {whole} {field}, {constant(127)}")
        return self.define(f"sitofp {whole} {unbiased} to {vector}")

    def load(self, pointer: str, dtype: str, lanes: int, count: int) -> str:
        """`count` elements as float32, the other lanes zero."""
        element = "float" if dtype == "f32" else "i32"
        vector = vector_type(lanes, element)
        if count < lanes and self.target.masks:
            suffix = f"v{lanes}{'f32' if dtype == 'f32' else 'i32'}"
            loaded = self.define(
                f"call {vector} @llvm.masked.load.{suffix}.p0(ptr align 4 {pointer}, "
                f"<{lanes} x i1> {mask(lanes, count)}, {vector} zeroinitializer)"
            )
        elif count < lanes:
            loaded = self._widened(
                self.define(f"load {vector_type(count, element)}, ptr {pointer}, align 4"),
                element,
                lanes,
                count,
            )
        else:
            loaded = self.define(f"load {vector}, ptr {pointer}, align 4")
        if dtype == "f32":
            return loaded
        return self.define(f"sitofp {vector} {loaded} to {vector_type(lanes)}")

    def _widened(self, value: str, element: str, lanes: int, count: int) -> str:
        """A vector of `count` elements with zeros behind."""
        if count == 1:
            return self.define(
                f"insertelement <{lanes} x {element}> zeroinitializer, {element} {value}, i32 0"
            )
        short = f"<{count} x {element}>"
        chosen = shuffle_mask([min(i, count) for i in range(lanes)])
        return self.define(f"shufflevector {short} {value}, {short} zeroinitializer, {chosen}")

    def store(self, pointer: str, value: str, lanes: int, count: int) -> None:
        """Store the first `count` lanes."""
        vector = vector_type(lanes)
        if count == lanes:
            self.do(f"store {vector} {value}, ptr {pointer}, align 4")
        elif self.target.masks:
            self.do(
                f"call void @llvm.masked.store.v{lanes}f32.p0({vector} {value}, ptr align 4 {pointer}, "
                f"<{lanes} x i1> {mask(lanes, count)})"
            )
        elif count == 1:
            first = self.define(f"extractelement {vector} {value}, i32 0")
            self.do(f"store float {first}, ptr {pointer}, align 4")
        else:
            chosen = shuffle_mask(range(count))
            short = self.define(f"shufflevector {vector} {value}, {vector} poison, {chosen}")
            self.do(f"store <{count} x float> {short}, ptr {pointer}, align 4")

    def stream(self, pointer: str, value: str, lanes: int) -> None:
        """Store all lanes past the caches, at a multiple of the vector's size."""
        self.do(
            f"store {vector_type(lanes)} {value}, ptr {pointer}, align {4 * lanes}, !nontemporal !{{i32 1}}"
        )

    def fence(self) -> None:
        """Behind what was stored past the caches: x86 lets later stores overtake it, such as those that tell
        other threads of it."""
        if self.target.triple.startswith("x86"):
            self.do("call void @llvm.x86.sse.sfence()")

    def prefetch(self, pointer: str) -> None:
        """For reading, to be kept in all caches, data."""
        self.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 3, i32 1)")

    def broadcast(self, value: str, lanes: int, element: str = "float") -> str:
        """A scalar in every lane."""
        if lanes == 1:
            return value
        vector = vector_type(lanes, element)
        first = self.define(f"insertelement {vector} poison, {element} {value}, i32 0")
        return self.define(
            f"shufflevector {vector} {first}, {vector} poison, <{lanes} x i32> zeroinitializer"
        )

    def interleave(self, half: str, operands: Sequence[str], lanes: int) -> str:
        """Halves of two vectors, lane by lane in turn."""
        vector, first = vector_type(lanes), lanes // 2 if half == "high" else 0
        chosen = shuffle_mask([first + i // 2 + i % 2 * lanes for i in range(lanes)])
        return self.define(f"shufflevector {vector} {operands[0]}, {vector} {operands[1]}, {chosen}")

    def join(self, operands: Sequence[str], lanes: int) -> str:
        """The lanes of two vectors of half as many each."""
        vector, chosen = vector_type(lanes // 2), shuffle_mask(range(lanes))
        return self.define(f"shufflevector {vector} {operands[0]}, {vector} {operands[1]}, {chosen}")

    def half(self, half: str, value: str, lanes: int) -> str:
        """The first lanes of a vector of twice as many, or the last."""
        vector, first = vector_type(2 * lanes), lanes if half == "high" else 0
        chosen = shuffle_mask(range(first, first + lanes))
        return self.define(f"shufflevector {vector} {value}, {vector} poison, {chosen}")

    def reduce(self, function: str, value: str, lanes: int) -> str:
        """Combine the lanes pairwise, upper half with lower half, down to one."""
        while lanes > 1:
            half, vector = lanes // 2, vector_type(lanes)
            parts = [
                self.define(f"shufflevector {vector} {value}, {vector} poison, {shuffle_mask(part)}")
                for part in (range(half), range(half, lanes))
            ]
            if half == 1:
                parts = [self.define(f"extractelement <1 x float> {part}, i32 0") for part in parts]
            value, lanes = self.compute(function, parts, half), half
        return value

    def uniform(self, seed: int, counter: str, whole: str, lanes: int) -> str:
        """Philox 2x32-10 of the elements from the number `whole` on; see cnnc/ops/philox.py."""
        wide, half = vector_type(lanes, "i64"), splat(WORD, lanes, "i64")
        first = self.broadcast(whole, lanes, "i64")
        counted = self.define(f"add {wide} {first}, {counting(lanes, 'i64')}")
        left = self.define(f"and {wide} {counted}, {half}")
        bits = self.define(f"bitcast float {counter} to i32")
        right = self.broadcast(self.define(f"zext i32 {bits} to i64"), lanes, "i64")
        for number in range(ROUNDS):  # words stay in lanes of 64 bits, where products need no shuffles
            key = splat((seed + number * KEY_STEP) & WORD, lanes, "i64")
            product = self.define(f"mul {wide} {left}, {splat(MULTIPLIER, lanes, 'i64')}")
            high = self.define(f"lshr {wide} {product}, {splat(32, lanes, 'i64')}")
            keyed = self.define(f"xor {wide} {high}, {key}")
            left = self.define(f"xor {wide} {keyed}, {right}")
            right = self.define(f"and {wide} {product}, {half}")
        upper = self.define(f"lshr {wide} {left}, {splat(8, lanes, 'i64')}")
        drawn = self.define(f"trunc {wide} {upper} to {vector_type(lanes, 'i32')}")
        whole_number = self.define(f"sitofp {vector_type(lanes, 'i32')} {drawn} to {vector_type(lanes)}")
        return self.define(f"fmul {vector_type(lanes)} {whole_number}, {literal(2.0**-24, lanes)}")

    def index(self, whole: str, lanes: int) -> str:
        """A coordinate as a float, counting up along the lanes."""
        base = self.broadcast(self.define(f"sitofp i64 {whole} to float"), lanes)
        return self.define(f"fadd {vector_type(lanes)} {base}, {lane_numbers(lanes)}")
