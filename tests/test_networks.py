"""The networks in examples/: their sizes, and what they compute beside PyTorch, where it is installed.

PyTorch computes in float64 with the weights that both have. Images are small, for speed; benchmarks/ compares
the full size.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cnnc
from benchmarks import optional
from benchmarks.zoo import BY_NAME, ZOO, Entry, calibration_images, sample
from cnnc.backend import llvm
from cnnc.ir.types import Array
from tests.gradients import Gradients, compiled_gradients

BATCH = 4
OUTPUT_LIMIT, GRADIENT_LIMIT, STATISTICS_LIMIT = 1e-4, 1e-3, 1e-4
SMALL_GRADIENT = 1e-3
"""Gradients below this share of the largest one may be all rounding: a bias before a batch norm has none."""
SEEDS = range(3)
STEPS, STEP_BATCH, RATE, LOSS_LIMIT = 50, 8, 0.001, 1e-3

STAGES = {
    "lenet5": ["c1 6x28x28", "s2 6x14x14", "c3 16x10x10", "s4 16x5x5", "c5 120", "f6 84", "output 10"],
    "alexnet": [
        "features.0 64x55x55",
        "max_pool_1 64x27x27",
        "features.3 192x27x27",
        "max_pool_2 192x13x13",
        "features.6 384x13x13",
        "features.8 256x13x13",
        "features.10 256x13x13",
        "max_pool_3 256x6x6",
        "flatten_1 9216",
        "classifier.1 4096",
        "classifier.4 4096",
        "classifier.6 1000",
    ],
    "vgg16": [
        "features.2 64x224x224",
        "max_pool_1 64x112x112",
        "features.7 128x112x112",
        "max_pool_2 128x56x56",
        "features.14 256x56x56",
        "max_pool_3 256x28x28",
        "features.21 512x28x28",
        "max_pool_4 512x14x14",
        "features.28 512x14x14",
        "max_pool_5 512x7x7",
        "flatten_1 25088",
        "classifier.0 4096",
        "classifier.3 4096",
        "classifier.6 1000",
    ],
    "googlenet": [
        "conv1.bn 64x112x112",
        "max_pool_1 64x56x56",
        "conv3.bn 192x56x56",
        "max_pool_2 192x28x28",
        "concat_1 256x28x28",
        "concat_2 480x28x28",
        "concat_3 512x14x14",
        "concat_4 512x14x14",
        "concat_5 512x14x14",
        "concat_6 528x14x14",
        "concat_7 832x14x14",
        "concat_8 832x7x7",
        "concat_9 1024x7x7",
        "global_mean_pool_1 1024",
        "fc 1000",
    ],
    "resnet18": [
        "bn1 64x112x112",
        "max_pool_1 64x56x56",
        "add_2 64x56x56",
        "add_4 128x28x28",
        "add_6 256x14x14",
        "add_8 512x7x7",
        "global_mean_pool_1 512",
        "fc 1000",
    ],
    "resnet50": [
        "bn1 64x112x112",
        "max_pool_1 64x56x56",
        "add_3 256x56x56",
        "add_7 512x28x28",
        "add_13 1024x14x14",
        "add_16 2048x7x7",
        "global_mean_pool_1 2048",
        "fc 1000",
    ],
    "densenet121": [
        "features.norm0 64x112x112",
        "max_pool_1 64x56x56",
        "concat_6 256x56x56",
        "mean_pool_1 128x28x28",
        "concat_18 512x28x28",
        "mean_pool_2 256x14x14",
        "concat_42 1024x14x14",
        "mean_pool_3 512x7x7",
        "concat_58 1024x7x7",
        "global_mean_pool_1 1024",
        "classifier 1000",
    ],
    "mobilenet_v2": [
        "features.0.1 32x112x112",
        "features.1.conv.2 16x112x112",
        "features.3.conv.3 24x56x56",
        "features.6.conv.3 32x28x28",
        "features.10.conv.3 64x14x14",
        "features.13.conv.3 96x14x14",
        "features.16.conv.3 160x7x7",
        "features.17.conv.3 320x7x7",
        "features.18.1 1280x7x7",
        "global_mean_pool_1 1280",
        "classifier.1 1000",
    ],
    "unet": [
        "down1.conv2 64x256x256",
        "down2.conv2 128x128x128",
        "down3.conv2 256x64x64",
        "down4.conv2 512x32x32",
        "bottom.conv2 1024x16x16",
        "up4.expand 512x32x32",
        "concat_1 1024x32x32",
        "up4.conv2 512x32x32",
        "up3.conv2 256x64x64",
        "up2.conv2 128x128x128",
        "up1.conv2 64x256x256",
        "classes 2x256x256",
    ],
    "alphago": ["conv1 192x19x19", "conv12 192x19x19", "conv13 1x19x19", "position 1x19x19", "flatten_1 361"],
}

each_network = pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)


@each_network
def test_the_stages_have_the_sizes_of_the_paper(entry: Entry) -> None:
    graph = entry.declare(entry.size).graph()
    shapes = {n.layer: n.results[0].type.shape[1:] for n in graph.nodes}
    for stage in STAGES[entry.name]:
        layer, size = stage.split()
        assert f"{layer} {'x'.join(map(str, shapes[layer]))}" == f"{layer} {size}"


@each_network
def test_the_parameters_are_as_many_as_published(entry: Entry) -> None:
    params = entry.declare(entry.size).graph().params
    assert sum(p.type.size for p in params if not is_statistic(p.name)) == entry.parameters


@each_network
def test_the_file_declares_a_network_that_trains(entry: Entry) -> None:
    found = cnnc.load_network(f"examples/{entry.name}.py")
    assert isinstance(found, cnnc.Network) and found.has_loss
    assert found.inputs[0].shape[1:] == (entry.size, entry.size)


@each_network
def test_a_state_dict_of_pytorch_loads_from_a_file(entry: Entry, tmp_path: Path) -> None:
    """Its own entries, the counters of batches, and the heads that GoogLeNet had in training."""
    made = torch_zoo().MODULES[entry.name](entry.small)
    state = {name: tensor.numpy() for name, tensor in made.state_dict().items()}
    if entry.name == "googlenet":
        state["aux1.fc1.weight"] = np.zeros((2, 3), np.float32)
    path = tmp_path / "weights.safetensors"
    cnnc.save_weights(path, state)
    found = cnnc.source.source_of(entry.declare(entry.small)).weights(path)
    for name, weight in found.items():
        np.testing.assert_array_equal(weight, state[name], name)


@each_network
def test_outputs_are_those_of_pytorch(entry: Entry) -> None:
    zoo, net = torch_zoo(), entry.declare(entry.small)
    images, _ = sample(net, BATCH)
    module = zoo.module(entry, entry.small, calibration_images(net))
    found = cnnc.compile(net, batch=BATCH, threads=2, weights=zoo.weights(module))(images)
    expected = module.double()(zoo.torch.from_numpy(images).double()).detach().numpy()
    assert relative(found, expected) < OUTPUT_LIMIT


@each_network
def test_gradients_are_those_of_pytorch(entry: Entry) -> None:
    """Of every parameter and of the images. A unit so near to a kink of relu or max pooling that rounding
    decides makes two right gradients differ; by other weights it is another unit, if any. Wrong gradients are
    wrong by all of them."""
    worst = {}
    for seed in SEEDS:
        found, expected = both_gradients(entry, seed)
        assert found.loss == pytest.approx(expected.loss, rel=GRADIENT_LIMIT)
        check_alike(found.statistics, expected.statistics, STATISTICS_LIMIT)
        assert found.of.keys() == expected.of.keys()
        least = SMALL_GRADIENT * max(float(np.abs(g).max()) for g in expected.of.values())
        errors = {name: relative(found.of[name], wanted, least) for name, wanted in expected.of.items()}
        worst[seed] = max((error, name) for name, error in errors.items())
        if worst[seed][0] < GRADIENT_LIMIT:
            return
    pytest.fail(f"the gradients differ, most for each seed: {worst}")


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_the_loss_falls_as_with_pytorch(name: str) -> None:
    zoo, entry = torch_zoo(), BY_NAME[name]
    net = entry.declare(entry.small)
    batch = sample(net, STEP_BATCH)
    module = zoo.module(entry, entry.small, calibration_images(net))
    trainer = cnnc.compile_training(net, batch=STEP_BATCH, threads=2, weights=zoo.weights(module))
    theirs = zoo.stepper(entry, module.train(), batch, net.optimizer)
    found = [trainer.step(*batch, RATE)[0] for _ in range(STEPS)]
    expected = [theirs.step(RATE) for _ in range(STEPS)]
    np.testing.assert_allclose(found, expected, rtol=LOSS_LIMIT)
    assert found[-1] < found[0]


@cache
def torch_zoo() -> ModuleType:
    """benchmarks/torch_zoo.py; the test is skipped where PyTorch is not installed."""
    found = optional.find("torch_zoo", "torch")
    if found is None:
        pytest.skip(optional.missing("PyTorch"))
    return found


def both_gradients(entry: Entry, seed: int) -> tuple[Gradients, Gradients]:
    """Ours and PyTorch's, with the same weights on the same images."""
    zoo, net = torch_zoo(), entry.declare(entry.small)
    batch = sample(net, BATCH)
    module = zoo.module(entry, entry.small, calibration_images(net), seed)
    found = compiled_gradients(net, batch, zoo.weights(module), llvm.host())
    return found, torch_gradients(zoo, entry, module.double(), batch)


def torch_gradients(zoo: ModuleType, entry: Entry, module: Any, batch: tuple[Array, Array]) -> Gradients:
    """By every parameter and the images, in training mode, with the running statistics afterwards."""
    images = zoo.torch.from_numpy(batch[0]).double().requires_grad_()
    targets = zoo.targets_of(batch[1])
    loss = zoo.loss_of(entry, module.train()(images), targets)
    loss.backward()
    gradients = {name: p.grad.numpy() for name, p in module.named_parameters()}
    statistics = {name: b.numpy() for name, b in module.named_buffers() if is_statistic(name)}
    return Gradients(loss.item(), gradients | {"image": images.grad.numpy()}, statistics)


def check_alike(found: Mapping[str, Array], expected: Mapping[str, Array], limit: float) -> None:
    """The same names, and nothing farther apart than the limit."""
    assert found.keys() == expected.keys()
    errors = {name: relative(found[name], wanted) for name, wanted in expected.items()}
    assert {name: error for name, error in errors.items() if error >= limit} == {}


def is_statistic(name: str) -> bool:
    """Whether batches are counted in it rather than learned from."""
    return name.endswith((".running_mean", ".running_var"))


def relative(found: Array, expected: Array, least: float = 0.0) -> float:
    """The largest difference, relative to the largest magnitude expected or to `least`."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), least))
