"""The ten networks that are compared with PyTorch: their names, sizes and parameters; how they are declared.

benchmarks/torch_networks.py has the same networks for PyTorch, and tests/test_networks.py compares the two.
"""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnc.errors import CnncError
from cnnc.frontend.network import Network
from cnnc.ir.types import Array

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SAMPLE_SEED, CALIBRATION_SEED = 0, 1
CALIBRATION_BATCH = 4


@dataclass(frozen=True)
class Entry:
    """A network: the file in examples/ that declares it, its name in tables, the height and width of its
    images, and of smaller ones for tests; how many parameters it trains; the batches with which inference
    is timed, and training steps if they are."""

    name: str
    title: str
    size: int
    small: int
    parameters: int
    image_batches: tuple[int, ...] = (1,)
    step_batch: int | None = None

    def declare(self, size: int) -> Network:
        """The network for images of size x size. Nothing is dropped, for two systems never drop the same."""
        module = runpy.run_path(str(EXAMPLES / f"{self.name}.py"))
        if "network" not in module:
            return self._checked(module.get("net"))
        make = module["network"]
        dropping = {"drop": 0.0} if "drop" in inspect.signature(make).parameters else {}
        return self._checked(make(size, **dropping))

    def _checked(self, found: object) -> Network:
        if not isinstance(found, Network):
            raise CnncError(f"{EXAMPLES / self.name}.py declares no network")
        return found


ZOO = (
    Entry("lenet5", "LeNet-5", 32, 32, 61_706, step_batch=64),
    Entry("alexnet", "AlexNet", 224, 64, 61_100_840),
    Entry("vgg16", "VGG-16", 224, 32, 138_357_544, step_batch=4),
    Entry("googlenet", "GoogLeNet", 224, 64, 6_624_904, step_batch=8),
    Entry("resnet18", "ResNet-18", 224, 64, 11_689_512, (1, 8), 8),
    Entry("resnet50", "ResNet-50", 224, 64, 25_557_032, (1, 8)),
    Entry("densenet121", "DenseNet-121", 224, 64, 7_978_856, step_batch=8),
    Entry("mobilenet_v2", "MobileNet v2", 224, 64, 3_504_872, (1, 8), 8),
    Entry("unet", "U-Net", 256, 32, 31_030_658, step_batch=1),
    Entry("alphago", "AlphaGo policy", 19, 9, 3_882_793, step_batch=16),
)
BY_NAME: Mapping[str, Entry] = {entry.name: entry for entry in ZOO}


def sample(net: Network, batch: int, seed: int = SAMPLE_SEED) -> tuple[Array, Array]:
    """Random images, and random labels or the random target of a squared error."""
    random = np.random.default_rng(seed)
    images = random.standard_normal((batch, *net.inputs[0].shape), np.float32)
    if net.classes is not None:
        return images, random.integers(0, net.classes, batch).astype(np.int32)
    shape = net.graph().outputs[0].type.shape[1:]
    return images, random.standard_normal((batch, *shape), np.float32)


def calibration_images(net: Network) -> Array:
    """Other images, by which running statistics begin."""
    return sample(net, CALIBRATION_BATCH, CALIBRATION_SEED)[0]
