"""What ops have in common that are chosen behind autodiff: algorithms of other ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnc.errors import UnsupportedError
from cnnc.ir.graph import Value
from cnnc.ir.op import Emitter, Op


@dataclass(frozen=True)
class NoDerivative(Op):
    """An op that stands behind the derivative."""

    def grad(
        self,
        emit: Emitter,
        operands: Sequence[Value],
        results: Sequence[Value],
        result_grads: Sequence[Value],
    ) -> Sequence[Value | None]:
        raise UnsupportedError(f"{self.name} has no derivative: algorithms are chosen behind the gradients")
