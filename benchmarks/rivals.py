"""What the systems beside cnnc have in common: something that computes images or takes training steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cnnc.ir.types import Array

EAGER, CHANNELS_LAST, COMPILED = "PyTorch eager", "PyTorch channels-last", "torch.compile"
ONNX_RUNTIME, OPENVINO = "ONNX Runtime", "OpenVINO"
IMAGE_SYSTEMS = (EAGER, CHANNELS_LAST, COMPILED, ONNX_RUNTIME, OPENVINO)
STEP_SYSTEMS = (EAGER, CHANNELS_LAST, COMPILED)
"""In the order of the tables' columns."""


@dataclass(frozen=True)
class ImageRival:
    """A system that computes the same images again with each call of `run`. `make` does what comes before."""

    name: str
    make: Callable[[], Callable[[], Array]]


@dataclass(frozen=True)
class Stepper:
    """`step` takes a learning rate, and returns the loss before the update; `weights` those of the moment."""

    step: Callable[[float], float]
    weights: Callable[[], Mapping[str, Array]]


@dataclass(frozen=True)
class StepRival:
    """A system that trains on the same images with each step. `make` does what comes before the first."""

    name: str
    make: Callable[[], Stepper]
