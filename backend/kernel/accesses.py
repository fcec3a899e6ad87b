"""Where a kernel touches memory: the one traversal that the proofs of bounds and conflicts share."""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.backend.kernel.intervals import Interval, Nest
from cnnc.backend.kernel.ir import (
    Affine,
    Assign,
    Declare,
    For,
    Kernel,
    Let,
    Load,
    Prefetch,
    Splat,
    Statement,
    Store,
)


@dataclass(frozen=True)
class Touch:
    """A statement that loads or stores `width` elements along the last dimension of a buffer."""

    statement: Let | Assign | Store
    buffer: str
    index: tuple[Affine, ...]
    width: int
    nest: Nest

    @property
    def writes(self) -> bool:
        return isinstance(self.statement, Store)

    def span(self, dimension: int, origin: Affine | int = 0) -> Interval:
        """The indices touched in `dimension`, counted from `origin`."""
        first = self.nest.interval(self.index[dimension] - origin)
        if self.width == 1 or dimension < len(self.index) - 1:
            return first
        return Interval(first.low, first.high + self.width - 1)


def touches(kernel: Kernel) -> list[Touch]:
    """Every load and store of the kernel, but for those in loops that are always empty. A prefetch is
    none."""
    found: list[Touch] = []
    _collect(kernel.body, Nest(), found)
    return found


def _collect(block: tuple[Statement, ...], nest: Nest, found: list[Touch]) -> None:
    if nest.empty:
        return
    for statement in block:
        if isinstance(statement, For):
            _collect(statement.body, nest.enter(statement), found)
        elif not isinstance(statement, Declare | Prefetch):
            access = statement if isinstance(statement, Store) else statement.instruction
            if isinstance(access, Load | Store):
                found.append(Touch(statement, access.buffer, access.index, access.count, nest))
            elif isinstance(access, Splat):
                found.append(Touch(statement, access.buffer, access.index, 1, nest))
