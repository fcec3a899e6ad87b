"""Trainer: a network compiled for training in this process; one native call is one step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cnnc.backend.interface import Interface, Port
from cnnc.errors import CnncError, ShapeError
from cnnc.frontend.weights import save_weights
from cnnc.ir.types import DTYPES, Array
from cnnc.native import Native, address
from cnnc.ops.optimizer import Optimizer
from cnnc.passes.append_updates import LEARNING_RATE
from cnnc.shuffle import Shuffle

Labelled = tuple[Array, Array]
"""Images (float32, the input's shape with the batch axis) and int32 labels (or float32 targets)."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: mean loss and, for labels, the shares of right answers (None if not known)."""

    number: int
    loss: float
    accuracy: float | None
    test_accuracy: float | None
    seconds: float


class Trainer:
    """Holds the params between steps. Not safe for two threads at once."""

    def __init__(
        self, interface: Interface, optimizer: Optimizer, weights: Mapping[str, Array], native: Native
    ) -> None:
        self.interface, self.optimizer, self.native = interface, optimizer, native
        self.batch = interface.batch
        self.learning_rate = float(optimizer.lr)
        self._block = native.packed((weights[w.name] for w in interface.weights), interface.param_bytes)
        self._inputs = [port for port in interface.inputs if port.name != LEARNING_RATE]
        self._outputs = [np.zeros(port.shape, np.float32) for port in interface.outputs]
        ports = len(self._inputs) + len(self._outputs)
        self._step = native.function("step", ports + 1 + 3)
        self._evaluate = native.function("evaluate", ports + 3)
        self._rate = np.zeros((), np.float32)
        self._tail = (
            *map(address, self._outputs),
            address(self._block),
            address(native.workspace),
            native.pool,
        )

    def step(self, x: Array, labels: Array, lr: float | None = None) -> tuple[float, float | None]:
        """One step on one batch: the loss before the update, and the number of right answers (None for a
        squared error). Raises ShapeError unless both have the compiled batch and shapes."""
        arrays = self._checked(x, labels)
        self._rate[...] = self.learning_rate if lr is None else lr
        self._step(*map(address, arrays), address(self._rate), *self._tail)
        return self._results()

    def evaluate(self, x: Array, labels: Array) -> float:
        """The share of images whose label the network finds, over any number of images."""
        self._check_classes()
        if not len(x):
            raise ShapeError("there are no images to evaluate")
        _check_alike(x, labels)
        right = sum(
            self._right(x[start : start + self.batch], labels[start : start + self.batch])
            for start in range(0, len(x), self.batch)
        )
        return right / len(x)

    def fit(
        self,
        train: Labelled,
        epochs: int,
        lr: float | None = None,
        test: Labelled | None = None,
        seed: int = 0,
        on_step: Callable[[], None] | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> list[Epoch]:
        """Train on batches in the order a built program takes; what is left at an epoch's end is dropped.

        `lr` is what the optimizer's schedule begins with. Raises CnncError if there are fewer images
        than one batch has.
        """
        images, labels = train
        if len(images) < self.batch:
            raise CnncError(f"{len(images)} images are fewer than one batch of {self.batch}")
        _check_alike(images, labels)
        if test is not None:
            self._check_classes()
        shuffle, history = Shuffle(seed, len(images)), []
        first_rate = float(np.float32(self.learning_rate if lr is None else lr))
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            rate = self.optimizer.rate(first_rate, number - 1, epochs)
            loss, accuracy = self._epoch(images, labels, shuffle.next_order(), rate, on_step)
            tested = self.evaluate(*test) if test is not None else None
            history.append(Epoch(number, loss, accuracy, tested, time.perf_counter() - start))
            if on_epoch is not None:
                on_epoch(history[-1])
        return history

    def weights(self) -> dict[str, Array]:
        """The weights as they are now, float32 in the logical order and the declared shapes."""
        floats = np.empty(self.interface.parameters, np.float32)
        self.native.function("unpack", 2)(address(self._block), address(floats))
        table = self.interface.weights
        return {w.name: floats[w.offset : w.offset + w.size].reshape(w.shape).copy() for w in table}

    def save(self, path: str) -> None:
        """Write the weights as safetensors or npz, by the path's suffix; whole or not at all."""
        save_weights(path, self.weights())

    def _epoch(
        self, images: Array, labels: Array, order: Array, lr: float, on_step: Callable[[], None] | None
    ) -> tuple[float, float | None]:
        steps = len(order) // self.batch
        total, right = 0.0, 0.0
        for chosen in order[: steps * self.batch].reshape(steps, self.batch):
            loss, correct = self.step(images[chosen], labels[chosen], lr)
            total += loss
            right += correct or 0.0
            if on_step is not None:
                on_step()
        classes = self.interface.classes
        return total / steps, right / (steps * self.batch) if classes is not None else None

    def _check_classes(self) -> None:
        if self.interface.classes is None:
            raise CnncError(f"{self.interface.name} has no classes to count right answers of")

    def _right(self, x: Array, labels: Array) -> float:
        """Right answers in a batch that may be short: it is filled up with its first image, which is then
        taken off again as often as it was counted too much."""
        missing = self.batch - len(x)
        if not missing:
            return self._correct(x, labels)
        first_x, first_label = np.repeat(x[:1], self.batch, 0), np.repeat(labels[:1], self.batch, 0)
        once = self._correct(first_x, first_label) / self.batch
        filled = self._correct(
            np.concatenate([x, first_x[:missing]]), np.concatenate([labels, first_label[:missing]])
        )
        return filled - missing * once

    def _correct(self, x: Array, labels: Array) -> float:
        arrays = self._checked(x, labels)
        self._evaluate(*map(address, arrays), *self._tail)
        return self._results()[1] or 0.0

    def _results(self) -> tuple[float, float | None]:
        loss = float(self._outputs[0])
        return loss, float(self._outputs[1]) if len(self._outputs) > 1 else None

    def _checked(self, *arrays: Array) -> list[Array]:
        return [
            _fitted(value, a, self.interface.classes) for value, a in zip(self._inputs, arrays, strict=True)
        ]


def _fitted(port: Port, array: Array, classes: int | None) -> Array:
    """The array as the native code reads it. Raises ShapeError on another shape or a label out of range."""
    given = np.asarray(array)
    if given.shape != port.shape:
        raise ShapeError(f"{port.name} has shape {given.shape}; a batch has {port.shape}")
    if port.dtype == "i32":
        _check_labels(port.name, given, classes)
    return np.ascontiguousarray(given, DTYPES[port.dtype])


def _check_labels(name: str, labels: Array, classes: int | None) -> None:
    """Raise ShapeError unless these are whole numbers of 0 to classes - 1."""
    if labels.dtype.kind not in "iu":
        raise ShapeError(f"{name} are {labels.dtype}; whole numbers are needed")
    if classes is not None and (labels.min() < 0 or labels.max() >= classes):
        index = int(np.flatnonzero((labels < 0) | (labels >= classes))[0])
        raise ShapeError(f"label {index} is {int(labels[index])}; labels are 0 to {classes - 1}")


def _check_alike(images: Array, labels: Array) -> None:
    if len(images) != len(labels):
        raise ShapeError(f"there are {len(images)} images and {len(labels)} labels")
