"""Random operands for an op's samples, for the generic tests and for `cnnc verify`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cnnc.ir.op import Op, Sample
from cnnc.ir.types import Array, TensorType


@dataclass(frozen=True)
class LinkedSample(Sample):
    """A sample whose operands depend on each other: (i, op, (j, k)) makes operand i = op(operands j, k).
    Operands of the types `drawn`, numbered on, are for the links alone."""

    links: tuple[tuple[int, Op, tuple[int, ...]], ...] = ()
    drawn: tuple[TensorType, ...] = ()


def random_operands(
    sample: Sample, rng: np.random.Generator, floats: npt.DTypeLike = np.float32
) -> tuple[Array, ...]:
    """Uniform operands within the sample's ranges (both ends possible for integers).

    Floating-point operands are of dtype `floats`, by default from -1 to 1.
    """
    operands: list[Array] = []
    links, drawn = (sample.links, sample.drawn) if isinstance(sample, LinkedSample) else ((), ())
    for index, type in enumerate((*sample.operands, *drawn)):
        low, high = sample.ranges[index] if sample.ranges else (-1.0, 1.0)
        if type.dtype == "i32":
            operands.append(rng.integers(int(low), int(high), type.shape, np.int32, endpoint=True))
        else:
            operands.append(np.asarray(rng.uniform(low, high, type.shape), dtype=floats))
    for target, op, sources in links:
        (operands[target],) = op.reference(*(operands[source] for source in sources))
    return tuple(operands[: len(sample.operands)])
