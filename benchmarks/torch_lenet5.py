"""LeNet-5 in PyTorch, as examples/lenet5.py declares it. Imported only where PyTorch is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.lenet5 import ImageRival, StepRival
from cnnc.errors import CnncError
from cnnc.ir.types import Array
from cnnc.ops.optimizer import SGD, Optimizer


def step_rivals(
    weights: Mapping[str, Array], images: Array, labels: Array, optimizer: Optimizer, lr: float, threads: int
) -> list[StepRival]:
    """Eager in both memory formats, and PyTorch's own compiler, which compiles at its first step."""
    torch.set_num_threads(threads)
    if not isinstance(optimizer, SGD):
        raise CnncError(f"the example's optimizer became {optimizer}; PyTorch's side knows SGD only")
    batch = torch.from_numpy(images.copy()), torch.from_numpy(labels).long()
    plain, last = torch.contiguous_format, torch.channels_last
    return [
        _step_rival("PyTorch eager, NCHW", _model(weights), batch, plain, optimizer, lr, False),
        _step_rival("PyTorch eager, channels-last", _model(weights), batch, last, optimizer, lr, False),
        _step_rival("PyTorch torch.compile", _model(weights), batch, plain, optimizer, lr, True),
    ]


def image_rivals(weights: Mapping[str, Array], image: Array) -> list[ImageRival]:
    """Eager in inference mode on one thread, from NumPy array to NumPy array."""
    torch.set_num_threads(1)
    model = _model(weights).eval()

    def classify() -> Array:
        with torch.inference_mode():
            logits: Array = model(torch.from_numpy(image)).numpy()
        return logits

    return [ImageRival("PyTorch inference_mode", classify)]


def _model(weights: Mapping[str, Array]) -> Any:
    layers = {
        "c1": nn.Conv2d(1, 6, 5),
        "tanh1": nn.Tanh(),
        "s2": nn.AvgPool2d(2),
        "c3": nn.Conv2d(6, 16, 5),
        "tanh3": nn.Tanh(),
        "s4": nn.AvgPool2d(2),
        "flatten": nn.Flatten(),
        "c5": nn.Linear(400, 120),
        "tanh5": nn.Tanh(),
        "f6": nn.Linear(120, 84),
        "tanh6": nn.Tanh(),
        "output": nn.Linear(84, 10),
    }
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    model.load_state_dict({name: torch.from_numpy(w.copy()) for name, w in weights.items()})
    return model


def _step_rival(
    name: str, model: Any, batch: tuple[Any, Any], memory: Any, optimizer: SGD, lr: float, compiled: bool
) -> StepRival:
    images, labels = batch[0].to(memory_format=memory), batch[1]
    model = model.to(memory_format=memory)
    updates = torch.optim.SGD(
        model.parameters(),
        lr=lr,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        fused=True,
    )

    def forward() -> Any:
        return nn.functional.cross_entropy(model(images), labels)

    loss_of = torch.compile(forward) if compiled else forward

    def step() -> float:
        updates.zero_grad()
        loss = loss_of()
        loss.backward()
        updates.step()
        return float(loss.item())

    def weights() -> dict[str, Array]:
        return {n: p.detach().contiguous().numpy().copy() for n, p in model.named_parameters()}

    return StepRival(name, step, weights)
