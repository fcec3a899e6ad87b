"""Training steps of one network beside PyTorch's: forward, loss, backward and update on the same images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import cnnc
from benchmarks import optional
from benchmarks.agreement import agree
from benchmarks.contest import Call, Comparison, Entrant, Settings, contest
from benchmarks.rivals import Stepper, StepRival
from benchmarks.zoo import Entry, calibration_images, sample
from cnnc.frontend.network import Network
from cnnc.ir.types import Array

LIMIT = 1e-3
"""Losses and updates of two systems must lie closer together, relative to the largest."""
ROUNDINGS = 4
"""Roundings by which a weight after its update may differ; they hide the end of a small update."""


def steps_compared(entry: Entry, batch: int, threads: int, settings: Settings) -> Comparison:
    """Ours and theirs, from the same weights. The steps that are timed have the rate 0, by which nothing
    grows however long it takes."""
    title = f"{entry.title}, training batch {batch}, {threads} thread{'s' * (threads > 1)}"
    settings.progress.say(f"{title}: cnnc compiles")
    net = entry.declare(entry.size)
    images = sample(net, batch)
    missing: list[str] = []
    rivals: list[StepRival] = []
    state: Mapping[str, Array] = net.initial_weights()
    if (torch_zoo := optional.find("torch_zoo", "torch")) is None:
        missing.append(optional.missing("PyTorch"))
    else:
        state = torch_zoo.weights(torch_zoo.module(entry, entry.size, calibration_images(net)))
        compiles = settings.compile_limit > 0
        rivals = torch_zoo.step_rivals(entry, state, images, net.optimizer, threads, compiles)
    ours = _ours(net, state, images, threads)
    first = _first_step(ours, net.optimizer.lr, state)
    entrants = (_entrant(rival, net.optimizer.lr, state, first) for rival in rivals)
    return contest(title, lambda: ours.step(0.0), entrants, missing, threads, settings)


def _ours(net: Network, state: Mapping[str, Array], images: tuple[Array, Array], threads: int) -> Stepper:
    trainer = cnnc.compile_training(net, batch=len(images[0]), threads=threads, weights=state)
    return Stepper(lambda rate: trainer.step(*images, rate)[0], trainer.weights)


def _entrant(rival: StepRival, rate: float, state: Mapping[str, Array], ours: Mapping[str, Array]) -> Entrant:
    noise = {name: ROUNDINGS * float(np.finfo(np.float32).eps * np.abs(w).max()) for name, w in state.items()}

    def enter() -> tuple[Call, float]:
        stepper = rival.make()
        gap = agree(rival.name, _first_step(stepper, rate, state), ours, LIMIT, noise)
        return (lambda: stepper.step(0.0)), gap

    return Entrant(rival.name, enter)


def _first_step(stepper: Stepper, rate: float, before: Mapping[str, Array]) -> dict[str, Array]:
    """The loss of one step, and by how much it changed each weight and each running statistic."""
    loss = np.array(stepper.step(rate))
    after = stepper.weights()
    return {"loss": loss, **{name: after[name] - weight for name, weight in before.items()}}
