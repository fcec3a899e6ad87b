"""Training steps of one network beside PyTorch's: forward, loss, backward and update on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import cnnc
from benchmarks import optional
from benchmarks.agreement import agree, typical
from benchmarks.contest import Call, Comparison, Entrant, Settings, contest
from benchmarks.rivals import Stepper, StepRival
from benchmarks.zoo import Entry, calibration_images, sample
from cnnc.ir.types import Array

VALUE_LIMIT, CHANGE_LIMIT = 1e-3, 3e-2
"""How far the loss and the running statistics, and the changes of the weights, may lie apart on average."""
ROUNDINGS = 4
"""Roundings of a weight that its change may be off by: they hide the last digits of a small one."""
STATISTICS = (".running_mean", ".running_var")


@dataclass(frozen=True)
class FirstStep:
    """What a step left: `values` are the loss and the running statistics, `changes` those of the weights."""

    values: Mapping[str, Array]
    changes: Mapping[str, Array]


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
    trainer = cnnc.compile_training(net, len(images[0]), threads, state, settings.target)
    ours = Stepper(lambda rate: trainer.step(*images, rate)[0], trainer.weights)
    first = _first_step(ours, net.optimizer.lr, state)
    entrants = (_entrant(rival, net.optimizer.lr, state, first) for rival in rivals)
    return contest(title, lambda: ours.step(0.0), entrants, missing, threads, settings)


def _entrant(rival: StepRival, rate: float, state: Mapping[str, Array], ours: FirstStep) -> Entrant:
    def enter() -> tuple[Call, float]:
        stepper = rival.make()
        theirs = _first_step(stepper, rate, state)
        agree(rival.name, theirs.values, ours.values, VALUE_LIMIT, typical)
        changes = _without_rounding(theirs.changes, ours.changes, state)
        return (lambda: stepper.step(0.0)), agree(rival.name, changes, ours.changes, CHANGE_LIMIT, typical)

    return Entrant(rival.name, enter)


def _first_step(stepper: Stepper, rate: float, before: Mapping[str, Array]) -> FirstStep:
    loss = np.array(stepper.step(rate))
    after = stepper.weights()
    statistics = {name: after[name] for name in before if name.endswith(STATISTICS)}
    changes = {name: after[name] - weight for name, weight in before.items() if name not in statistics}
    return FirstStep({"loss": loss, **statistics}, changes)


def _without_rounding(
    theirs: Mapping[str, Array], ours: Mapping[str, Array], state: Mapping[str, Array]
) -> dict[str, Array]:
    """Their changes, those of ours where only the rounding of the weights lies between."""
    nearer = {}
    for name, change in theirs.items():
        noise = ROUNDINGS * np.finfo(np.float32).eps * np.abs(state[name])
        nearer[name] = np.where(np.abs(change - ours[name]) <= noise, ours[name], change)
    return nearer
