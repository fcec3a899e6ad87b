"""The network, the images and the tolerance that both LeNet-5 benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnc.errors import CnncError
from cnnc.frontend.data import load_labelled
from cnnc.frontend.load import load_network
from cnnc.frontend.network import Network
from cnnc.ir.types import Array

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LIMIT = 1e-3
"""Outputs, losses and updates of two systems must lie closer together, relative to the largest."""


@dataclass(frozen=True)
class StepRival:
    """Another system's training step: `step` returns the loss before the update."""

    name: str
    step: Callable[[], float]
    weights: Callable[[], Mapping[str, Array]]


@dataclass(frozen=True)
class ImageRival:
    """Another system's inference: `classify` returns the logits [1,10]."""

    name: str
    classify: Callable[[], Array]


def network() -> Network:
    """The example as users have it."""
    found = load_network(str(EXAMPLES / "lenet5.py"))
    if not isinstance(found, Network):
        raise CnncError(f"{EXAMPLES / 'lenet5.py'} is not a network of the DSL")
    return found


def digits(net: Network, count: int) -> tuple[Array, Array]:
    """The first test digits: images [count,1,32,32] and labels."""
    data = EXAMPLES / "data" / "mnist"
    images, labels = load_labelled(
        data / "test-images-idx3-ubyte.gz",
        data / "test-labels-idx1-ubyte.gz",
        net.inputs[0],
        net.classes or 10,
    )
    return images[:count], labels[:count]
