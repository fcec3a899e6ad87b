"""How weights begin. An initializer is called with a weight's shape and a seeded generator.

He, Zhang, Ren and Sun 2015 (variance 2 / fan-in, for ReLU) and Glorot and Bengio 2010 (variance
2 / (fan-in + fan-out), for tanh and sigmoid), each as a normal and as a uniform distribution. Any
function of the same form serves as a user's own.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from cnnc.errors import CnncError
from cnnc.frontend.calls import user_call
from cnnc.ir.types import Array


class Initializer(Protocol):
    """Returns the first value of a weight [O, I, ...] or a bias [O]."""

    def __call__(self, shape: tuple[int, ...], generator: np.random.Generator, /) -> Array: ...


@dataclass(frozen=True)
class VarianceScaling:
    """Zero mean, variance `gain` / fan; the fan is the fan-in or the mean of fan-in and fan-out."""

    gain: float
    fan: Literal["in", "mean"]
    distribution: Literal["normal", "uniform"]

    def __call__(self, shape: tuple[int, ...], generator: np.random.Generator, /) -> Array:
        deviation = math.sqrt(self.gain / self._fan(shape))
        if self.distribution == "normal":
            return generator.normal(0.0, deviation, shape)
        # A uniform distribution on (-b, b) has the variance b*b / 3.
        bound = math.sqrt(3.0) * deviation
        return generator.uniform(-bound, bound, shape)

    def _fan(self, shape: tuple[int, ...]) -> float:
        """The products of one output (in) or of one input (out); a bias [O] has itself alone."""
        outputs, inputs, taps = shape[0], math.prod(shape[1:2]), math.prod(shape[2:])
        return inputs * taps if self.fan == "in" else (inputs + outputs) * taps / 2


@dataclass(frozen=True)
class Constant:
    """Every element is `value`."""

    value: float

    def __call__(self, shape: tuple[int, ...], generator: np.random.Generator, /) -> Array:
        return np.full(shape, self.value)


he_normal = VarianceScaling(2.0, "in", "normal")
he_uniform = VarianceScaling(2.0, "in", "uniform")
glorot_normal = VarianceScaling(1.0, "mean", "normal")
glorot_uniform = VarianceScaling(1.0, "mean", "uniform")
he = he_normal
glorot = glorot_uniform
zeros = Constant(0.0)
ones = Constant(1.0)


@user_call
def constant(value: float) -> Constant:
    """The initializer that fills with `value`."""
    return Constant(float(value))


def initial_value(name: str, shape: tuple[int, ...], init: Initializer, seed: int) -> Array:
    """The float32 start of parameter `name`: it depends on the seed and the name, not on other layers.

    Raises CnncError when a user's initializer returns another shape.
    """
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    value = np.asarray(init(shape, generator), dtype=np.float32)
    if value.shape != shape:
        raise CnncError(f"the initializer of {name} returned shape {value.shape}, expected {shape}")
    return value
