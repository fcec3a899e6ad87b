"""Tensor types: a dtype and a constant shape. The leaf of the IR; everything imports it.

Shapes are in the logical order (activations N,C,H,W; weights O,I,Kh,Kw). How a tensor lies in
memory is a `Layout` (layout.py), chosen later by a pass and never part of the type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64), "i32": np.dtype(np.int32)}
)


@dataclass(frozen=True)
class TensorType:
    """`f32[1,6,28,28]`: element dtype and shape; `f32[]` is a scalar."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, without any padding a layout may add."""
        return self.size * DTYPES[self.dtype].itemsize

    @property
    def numpy(self) -> np.dtype[Any]:
        return DTYPES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def f32(*shape: int) -> TensorType:
    """The float32 tensor type of that shape."""
    return TensorType("f32", tuple(shape))
