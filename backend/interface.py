"""What a compiled network looks like from C, as plain data.

The front door fills in an `Interface` once the object code exists; the header, the tables of the
built programs (header.py) and the link step (link.py) are made from it and from nothing else.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

ALIGNMENT = 64
"""Bytes to whose multiples parameters and workspaces must be aligned."""

C_KEYWORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline int
    long register restrict return short signed sizeof static struct switch typedef union unsigned void
    volatile while alignas alignof bool catch class delete explicit export false friend mutable namespace
    new nullptr operator private protected public template this throw true try typename using virtual
    images params workspace pool weights threads NULL
"""
"""Words that cannot name an argument: keywords of C and C++ and the header's own argument names."""


@dataclass(frozen=True)
class Port:
    """An input or an output: dtype `f32` or `i32`, shape with the batch axis.

    For inputs, programs read a uint8 value v as v * scale + shift, each step rounded to float32.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float = 1.0
    shift: float = 0.0

    @property
    def size(self) -> int:
        """Number of elements, the batch included."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Weight:
    """A weight tensor; `offset` counts floats from the beginning of all weights, concatenated."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def weight_table(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[Weight, ...]:
    """The table of weights that lie one after the other in the given order."""
    named = tuple(shapes)
    ends = itertools.accumulate((math.prod(shape) for _, shape in named), initial=0)
    return tuple(Weight(name, shape, offset) for (name, shape), offset in zip(named, ends, strict=False))


@dataclass(frozen=True)
class Interface:
    """All that a caller of the compiled object must know.

    `name` is the C identifier every symbol begins with (`c_identifier` makes one). `inputs` and
    `outputs` are those of the compiled graph in order: for training image, labels, lr and loss,
    correct. `batch` is the number of images of one step, or the most of one run, `classes` the number of
    values a label may have (None without labels), `learning_rate` what a training program uses unless told.
    `param_bytes` and `workspace_bytes` are the sizes of the packed parameters (for training with the
    optimizer's state) and of the workspace. `schedule` is the optimizer's: constant or
    linear. `version` is cnnc's own.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights: tuple[Weight, ...]
    param_bytes: int
    workspace_bytes: int
    train: bool
    target: str
    batch: int
    version: str
    has_builtin_params: bool
    classes: int | None = None
    learning_rate: float = 0.01
    schedule: str = "constant"

    @property
    def parameters(self) -> int:
        """Number of trained values: the floats of all weight tensors."""
        return sum(weight.size for weight in self.weights)

    @property
    def evaluate_inputs(self) -> tuple[Port, ...]:
        """What NAME_evaluate reads: the inputs of a step without scalars such as the learning rate."""
        return tuple(port for port in self.inputs if port.shape)


def c_identifier(text: str) -> str:
    """The text with every character that C does not allow in a name replaced by `_`."""
    name = re.sub(r"[^0-9A-Za-z_]", "_", text) or "network"
    return f"n{name}" if name[0].isdigit() else name


def argument_names(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct C argument names for values of these names: no keyword, nothing used twice."""
    chosen: list[str] = []
    for name in names:
        base = c_identifier(name)
        reserved = base in C_KEYWORDS.split()
        candidates = (
            f"{base}{suffix}" for suffix in itertools.chain([""], map("_{}".format, itertools.count(1)))
        )
        chosen.append(next(c for c in candidates if c not in chosen and not (reserved and c == base)))
    return tuple(chosen)
