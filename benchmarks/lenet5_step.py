"""A training step of LeNet-5 on 64 digits: forward, loss, backward, SGD with momentum and weight decay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import cnnc
from benchmarks import optional
from benchmarks.agreement import agree
from benchmarks.lenet5 import LIMIT, StepRival, digits, network
from benchmarks.report import Report, comparison
from benchmarks.rounds import Contestant, measure
from cnnc.frontend.network import Network
from cnnc.ir.types import Array

BATCH = 64
RATE = 0.01
"""A rate by which the same batch can be learned for minutes without anything growing."""


def lenet5_step(seconds: float, threads: int) -> Report:
    """Ours beside PyTorch's, from the same weights on the same batch, on so many threads."""
    net = network()
    first = {name: w.copy() for name, w in net.initial_weights().items()}
    ours = _ours(net, threads)
    loss, updates = _first_step(ours, first)
    contestants = [Contestant(ours.name, ours.step)]
    notes: list[str] = []
    for rival in _rivals(net, first, threads, notes):
        try:
            their_loss, their_updates = _first_step(rival, first)
        except Exception as error:  # whatever a compiler that does not work here raises
            notes.append(
                f"{rival.name} is left out: {(str(error).splitlines() or [type(error).__name__])[0]}"
            )
            continue
        worst = agree(rival.name, {"loss": their_loss, **their_updates}, {"loss": loss, **updates}, LIMIT)
        notes.append(f"{rival.name}: loss and updates of the first step agree within {worst:.1e}")
        contestants.append(Contestant(rival.name, rival.step))
    title = f"LeNet-5 training step, batch {BATCH}, {threads} thread{'s' * (threads > 1)}"
    return comparison(f"lenet5-step-{threads}", title, contestants, measure(contestants, seconds), notes)


def _ours(net: Network, threads: int) -> StepRival:
    trainer = cnnc.compile_training(net, batch=BATCH, threads=threads, cache=False)
    images, labels = digits(net, BATCH)
    return StepRival("cnnc", lambda: trainer.step(images, labels, RATE)[0], trainer.weights)


def _rivals(net: Network, first: Mapping[str, Array], threads: int, notes: list[str]) -> list[StepRival]:
    torch_lenet5 = optional.find("torch_lenet5", "torch")
    if torch_lenet5 is None:
        notes.append(optional.missing("PyTorch"))
        return []
    rivals: list[StepRival] = torch_lenet5.step_rivals(
        first, *digits(net, BATCH), net.optimizer, RATE, threads
    )
    return rivals


def _first_step(rival: StepRival, first: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """The loss of one step, and by how much it changed each weight."""
    loss = np.array(rival.step())
    after = rival.weights()
    return loss, {name: after[name] - weight for name, weight in first.items()}
