"""The algorithms of contractions and what each is expected to cost: what passes/choose_algorithms.py reads.

To add an algorithm, write its op and kernel, a file here that says what it suits and what it costs, and add
its rows to ALGORITHMS.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.backend.algorithms.direct import DIRECT
from cnnc.backend.algorithms.layer import Algorithm, Convolution, layer_of
from cnnc.backend.algorithms.space_to_depth import SPACE_TO_DEPTH
from cnnc.backend.algorithms.strassen import STRASSEN
from cnnc.backend.algorithms.winograd import WINOGRAD
from cnnc.backend.target import Target
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType
from cnnc.ops.partial import Partial
from cnnc.passes.choose_algorithms import Candidate


@dataclass(frozen=True)
class Algorithms:
    """The book of a target, the same for any number of threads, for no bit may depend on it.

    With `strict` no algorithm that sums in another order is offered; `train` says that weights change with
    every run, so that transforming them counts.
    """

    target: Target
    strict: bool = False
    train: bool = False

    def __call__(self, op: Op, operands: tuple[TensorType, ...], result: TensorType) -> tuple[Candidate, ...]:
        if not isinstance(op, Convolution) or isinstance(op, Partial):
            return ()
        layer, target = layer_of(op, operands, result), self.target.suited_to()
        return tuple(
            Candidate(a.name, a.cycles(target, layer, self.train), a.rewrite(layer))
            for a in ALGORITHMS
            if a.applies(layer) and not (self.strict and a.rewrite(layer) is not None)
        )


ALGORITHMS: tuple[Algorithm, ...] = (*DIRECT, *WINOGRAD, *SPACE_TO_DEPTH, *STRASSEN)
"""The table."""
