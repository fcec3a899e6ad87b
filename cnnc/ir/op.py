"""What an op is: the interface every operation declares once. The IR itself knows no op.

cnnc/ops/ declares the ops. The frontend asks them for result types, passes ask for traits and
derivatives, tests ask for samples and the NumPy reference; no one asks for a name.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Protocol

from cnnc.ir.types import Array, TensorType

if TYPE_CHECKING:
    from cnnc.ir.graph import Value


class Trait(enum.Enum):
    """What passes may rely on."""

    ELEMENTWISE = "each result element depends on the operands' elements at the same place"
    VIEW = "the row-major result is the row-major operand under another shape: no copy is owed"
    POOLING = "each result element depends on a window of operand 0 in the same channel"
    CONTRACTION = "a convolution or dense product, which can take an epilogue"
    JOIN = "the result is the operands one behind the other along `axis`"
    PART = "the result is the operand's elements from `start` on along `axis`"
    EPILOGUE = "a kernel that can apply a fused elementwise epilogue to its result"
    UPDATE = "the same, for epilogues that read whole tensors and scalars only; may write over such a tensor"
    SUMS = "sums over parts of the batch by channel, which an epilogue may add up"


class Emitter(Protocol):
    """How derivatives emit graph ops; GraphBuilder is one."""

    def emit(self, op: Op, *operands: Value) -> Value: ...

    def emit_all(self, op: Op, *operands: Value) -> tuple[Value, ...]: ...


@dataclass(frozen=True)
class Sample:
    """One case of an op for the generic tests: the op, and its operands' types.

    `ranges` bounds the random operand values, (low, high) per operand; integer operands need one.
    """

    op: Op
    operands: tuple[TensorType, ...]
    ranges: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class Op:
    """An operation; a subclass's fields are its attributes. Pure: same operands, same results."""

    name: ClassVar[str]
    traits: ClassVar[frozenset[Trait]] = frozenset()

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """Result types, or a ShapeError whose text names the values (without the op's name)."""
        raise NotImplementedError

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        """The results by NumPy, obviously right. Computes in the operands' dtype (float64 works)."""
        raise NotImplementedError

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        """Gradient of each operand given each result's gradient; None where none flows."""
        raise NotImplementedError

    def macs(self, *operands: TensorType) -> int:
        """Multiply-accumulates of the forward computation, 0 where the notion does not apply."""
        return 0

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        """Cases every generic test runs over; odd sizes, strides and tails among them."""
        return ()

    @property
    def attributes(self) -> Mapping[str, object]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def has(self, trait: Trait) -> bool:
        return trait in self.traits
