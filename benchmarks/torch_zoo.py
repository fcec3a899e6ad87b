"""PyTorch as a rival and as the source of weights, for every network of the zoo. Imported only where it is
installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.rivals import CHANNELS_LAST, COMPILED, EAGER, ImageRival, Stepper, StepRival
from benchmarks.torch_networks import MODULES
from benchmarks.zoo import Entry
from cnnc.errors import CnncError
from cnnc.ir.types import Array
from cnnc.ops.optimizer import SGD, Optimizer

FORMATS = {EAGER: torch.contiguous_format, CHANNELS_LAST: torch.channels_last, COMPILED: torch.channels_last}


def module(entry: Entry, size: int, images: Array, seed: int = 0) -> Any:
    """The network with random weights by which signals neither grow nor vanish, its running statistics those
    of the images; in inference mode.

    Batch norms put nearly all units some deviations above zero: near the kink of a relu rounding decides,
    and the gradients of two systems differ for no fault.
    """
    torch.manual_seed(seed)
    made = MODULES[entry.name](size)
    for part in made.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.15, 0.35)
            nn.init.ones_(part.bias)
    with torch.no_grad(), _statistics_of_one_batch(made):
        made.train()(torch.from_numpy(images))
    return made.eval()


@contextmanager
def _statistics_of_one_batch(made: Any) -> Iterator[None]:
    """Running statistics take those of each batch whole."""
    norms = {part: part.momentum for part in made.modules() if isinstance(part, nn.BatchNorm2d)}
    for norm in norms:
        norm.momentum = 1.0
    yield
    for norm, momentum in norms.items():
        norm.momentum = momentum


def weights(made: Any) -> dict[str, Array]:
    """The state_dict, copied, without the counters of batches."""
    state = made.state_dict().items()
    return {name: t.detach().contiguous().numpy().copy() for name, t in state if t.is_floating_point()}


def loss_of(entry: Entry, results: Any, targets: Any) -> Any:
    """The loss that examples/ declares: of class numbers, or of a target like the result."""
    if targets.is_floating_point():
        return (results - targets).square().sum() / len(targets)
    return nn.functional.cross_entropy(results, targets)


def targets_of(targets: Array) -> Any:
    tensor = torch.from_numpy(targets)
    return tensor if tensor.is_floating_point() else tensor.long()


def image_rivals(
    entry: Entry, state: Mapping[str, Array], images: Array, threads: int, compiles: bool
) -> list[ImageRival]:
    """In inference mode: eager in both memory formats, and compiled."""

    def make(name: str) -> Callable[[], Array]:
        torch.set_num_threads(threads)
        model = _loaded(entry, state, images.shape[-1], name).eval()
        inputs = torch.from_numpy(images).to(memory_format=FORMATS[name])
        run = _compiled(model, freezing=True) if name == COMPILED else model

        def call() -> Array:
            with torch.inference_mode():
                results: Array = run(inputs).contiguous().numpy()
            return results

        return call

    return [ImageRival(name, partial(make, name)) for name in _systems(compiles)]


def step_rivals(
    entry: Entry,
    state: Mapping[str, Array],
    batch: tuple[Array, Array],
    optimizer: Optimizer,
    threads: int,
    compiles: bool,
) -> list[StepRival]:
    """With the fused optimizer: eager in both memory formats, and compiled, as happens in the first step."""
    if not isinstance(optimizer, SGD):
        raise CnncError(f"{entry.name} has the optimizer {optimizer}; PyTorch's side knows SGD only")

    def make(name: str) -> Stepper:
        torch.set_num_threads(threads)
        model = _loaded(entry, state, batch[0].shape[-1], name).train()
        return stepper(entry, model, batch, optimizer, FORMATS[name], name == COMPILED)

    return [StepRival(name, partial(make, name)) for name in _systems(compiles)]


def stepper(
    entry: Entry,
    model: Any,
    batch: tuple[Array, Array],
    optimizer: SGD,
    memory: Any = torch.contiguous_format,
    compiles: bool = False,
) -> Stepper:
    """Training of a module on a batch."""
    images = torch.from_numpy(batch[0]).to(memory_format=memory)
    targets = targets_of(batch[1])
    updates = torch.optim.SGD(
        model.parameters(),
        lr=optimizer.lr,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        fused=True,
    )

    def forward() -> Any:
        return loss_of(entry, model(images), targets)

    loss_now = _compiled(forward) if compiles else forward

    def step(rate: float) -> float:
        updates.param_groups[0]["lr"] = rate
        updates.zero_grad()
        loss = loss_now()
        loss.backward()
        updates.step()
        return float(loss.item())

    return Stepper(step, lambda: weights(model))


def _systems(compiles: bool) -> tuple[str, ...]:
    return (EAGER, CHANNELS_LAST, COMPILED) if compiles else (EAGER, CHANNELS_LAST)


def _loaded(entry: Entry, state: Mapping[str, Array], size: int, system: str) -> Any:
    model = MODULES[entry.name](size)
    model.load_state_dict({n: torch.from_numpy(w.copy()) for n, w in state.items()}, strict=False)
    return model.to(memory_format=FORMATS[system])


def _compiled(function: Any, freezing: bool = False) -> Any:
    """Compiled when first called. `freezing` makes constants of the weights, which only inference can.

    What was compiled before, for other networks and numbers of threads, is forgotten.
    """
    torch.compiler.reset()
    return torch.compile(function, options={"freezing": freezing})
