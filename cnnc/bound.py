"""An entry of a unit with every argument in place, to be called again and again; random arguments for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import replace

import numpy as np

from cnnc.ir.graph import Value
from cnnc.ir.plan import Plan
from cnnc.ir.types import Array, TensorType
from cnnc.native import Native, address
from cnnc.passes.append_updates import LEARNING_RATE
from cnnc.units import CompiledUnit


class BoundEntry:
    """`entry()` runs `name_suffix` of a unit, made from `plan`, on arrays of its own.

    `feeds` gives every input by name, `block` is the param block; `outputs` holds the results, in the
    order of the plan's outputs, after each call. An entry that can be run for fewer images is run for
    `images`; they are 0 for any other.
    """

    def __init__(
        self,
        native: Native,
        suffix: str,
        plan: Plan,
        feeds: Mapping[str, Array],
        block: Array,
        images: int = 0,
    ) -> None:
        inputs, outputs = (whole(values, images) for values in (plan.graph.inputs, plan.graph.outputs))
        self._inputs = [
            np.array(feeds[name], type.numpy).reshape(type.shape) for name, type in inputs.items()
        ]
        self.outputs = [np.zeros(type.shape, type.numpy) for type in outputs.values()]
        self._block = block
        self._native = native
        arrays = (*self._inputs, *self.outputs, self._block, native.workspace)
        count = (images,) if images else ()
        self._arguments = (*count, *map(address, arrays), native.pool)
        self._function = native.function(suffix, len(self._arguments))

    def of(self, suffix: str) -> BoundEntry:
        """Another entry of the same plan on the same arrays."""
        other = copy(self)
        other._function = self._native.function(suffix, len(self._arguments))
        return other

    def __call__(self) -> None:
        self._function(*self._arguments)


def random_entry(compiled: CompiledUnit, native: Native, suffix: str) -> BoundEntry:
    """An entry of the main program on random inputs and the first weights; a learning rate of zero leaves
    the weights as they are."""
    plan, source = compiled.main.plan, compiled.source
    images = compiled.main.program.batch
    feeds = random_feeds(whole(plan.graph.inputs, images), np.random.default_rng(0), source.classes)
    feeds[LEARNING_RATE] = np.zeros((), np.float32)
    block = native.packed(compiled.given(source.initial_weights()), plan.param_bytes)
    return BoundEntry(native, suffix, plan, feeds, block, images)


def whole(values: Iterable[Value], images: int = 0) -> dict[str, TensorType]:
    """The types of inputs or outputs by name; of so many `images`, where a plan is for a part of them."""
    given = {v.name: v.type for v in values}
    if not images:
        return given
    return {n: replace(t, shape=(max(images, t.shape[0]), *t.shape[1:])) for n, t in given.items()}


def random_feeds(
    inputs: Mapping[str, TensorType], rng: np.random.Generator, classes: int | None
) -> dict[str, Array]:
    """An array for every input: normal float32 numbers, and labels 0..classes-1 where the type is i32."""
    return {
        name: rng.integers(0, classes or 1, type.shape, np.int32)
        if type.dtype == "i32"
        else np.asarray(rng.standard_normal(type.shape, np.float32))
        for name, type in inputs.items()
    }
