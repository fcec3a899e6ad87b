"""Physical layouts: how a logical tensor lies in memory. Chosen by passes/assign_layouts.py.

A layout is written like oneDNN's format tags, over the logical axes a, b, c, d, ... in order:
each lowercase letter is an axis laid out in full, an uppercase letter is an axis cut into
blocks, and `16b` after the letters is the inner block of axis b. So for activations `abcd` is
N,C,H,W and `acdb` is N,H,W,C; for weights `Acdb16a` is O/16,Kh,Kw,I,16 with O padded up to a
multiple of 16. Padding elements are zero and stay zero.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cnnc.ir.types import Array, TensorType


@dataclass(frozen=True)
class Layout:
    """A format tag such as `abcd`, `acdb` or `Acdb16a`; raises ValueError on a malformed tag."""

    tag: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"([A-Za-z]*)((\d+)([a-z]))?", self.tag):
            raise ValueError(f"malformed layout tag {self.tag!r}")
        letters = sorted(self.order.lower())
        if letters != list(string.ascii_lowercase[: len(letters)]):
            raise ValueError(f"layout tag {self.tag!r} does not name each axis once")
        blocked = [c for c in self.order if c.isupper()]
        if [c.lower() for c in blocked] != ([self.tag[-1]] if self.block > 1 else []):
            raise ValueError(f"layout tag {self.tag!r}: the uppercase axis must be the blocked one")

    @cached_property
    def order(self) -> str:
        return re.split(r"\d", self.tag)[0]

    @cached_property
    def block(self) -> int:
        """Elements of the inner block; 1 when no axis is blocked."""
        digits = re.search(r"\d+", self.tag)
        return int(digits.group()) if digits else 1

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """Logical axis of each physical dimension, the inner block's dimension left out."""
        return tuple(string.ascii_lowercase.index(c) for c in self.order.lower())

    @cached_property
    def blocked_axis(self) -> int | None:
        return string.ascii_lowercase.index(self.tag[-1]) if self.block > 1 else None

    def physical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in memory of a tensor of logical `shape`, padding included."""
        dims = [-(-shape[a] // self.block) if a == self.blocked_axis else shape[a] for a in self.axes]
        return (*dims, self.block) if self.block > 1 else tuple(dims)

    def nbytes(self, type: TensorType) -> int:
        return int(np.prod(self.physical_shape(type.shape), dtype=np.int64)) * type.numpy.itemsize

    def pack(self, array: Array) -> Array:
        """Logical array -> physical array, C-contiguous, padding filled with zeros."""
        if self.blocked_axis is None:
            return np.asarray(array.transpose(self.axes), order="C")
        a = self.blocked_axis
        blocks = -(-array.shape[a] // self.block)
        widths = [(0, 0)] * array.ndim
        widths[a] = (0, blocks * self.block - array.shape[a])
        padded = np.pad(array, widths)
        split = padded.reshape(*array.shape[:a], blocks, self.block, *array.shape[a + 1 :])
        outer = [x if x <= a else x + 1 for x in self.axes]
        return np.asarray(split.transpose(*outer, a + 1), order="C")

    def unpack(self, physical: Array, shape: tuple[int, ...]) -> Array:
        """Physical array -> logical array of `shape`; the inverse of `pack`."""
        inverse = np.argsort(self.axes)
        if self.blocked_axis is None:
            return np.asarray(physical.transpose(inverse), order="C")
        a = self.blocked_axis
        moved = np.moveaxis(physical.transpose(*inverse, len(self.axes)), -1, a + 1)
        merged = moved.reshape(*shape[:a], moved.shape[a] * self.block, *shape[a + 1 :])
        return np.asarray(np.take(merged, np.arange(shape[a]), axis=a), order="C")

    def __str__(self) -> str:
        return self.tag


def row_major(rank: int) -> Layout:
    """The logical order itself: `abcd` for rank 4, the empty tag for a scalar."""
    return Layout(string.ascii_lowercase[:rank])


CHANNELS_LAST = Layout("acdb")
