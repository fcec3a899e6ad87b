"""An entry of a unit with every argument in place, to be called again and again; random arguments for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import replace

import numpy as np

from cnnc.ir.graph import Value
from cnnc.ir.plan import Plan
from cnnc.ir.types import Array
from cnnc.native import Native, address
from cnnc.passes.append_updates import LEARNING_RATE
from cnnc.passes.set_batch import with_batch
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
        inputs, outputs = (_whole(values, images) for values in (plan.graph.inputs, plan.graph.outputs))
        self._inputs = [np.array(feeds[v.name], v.type.numpy).reshape(v.type.shape) for v in inputs]
        self.outputs = [np.zeros(v.type.shape, v.type.numpy) for v in outputs]
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
    plan, source, images = compiled.main.plan, compiled.source, compiled.main.program.batch
    feeds = random_feeds(_whole(plan.graph.inputs, images), np.random.default_rng(0), source.classes)
    feeds[LEARNING_RATE] = np.zeros((), np.float32)
    block = native.packed(compiled.given(source.initial_weights()), plan.param_bytes)
    return BoundEntry(native, suffix, plan, feeds, block, images)


def _whole(values: Iterable[Value], images: int) -> list[Value]:
    """Inputs or outputs of a plan; of so many images, where it is for fewer."""
    return [replace(v, type=with_batch(v.type, max([images, *v.type.shape[:1]]))) for v in values]


def random_feeds(inputs: Iterable[Value], rng: np.random.Generator, classes: int | None) -> dict[str, Array]:
    """An array for every input: normal float32 numbers, and labels 0..classes-1 where the type is i32."""
    return {
        v.name: rng.integers(0, classes or 1, v.type.shape, np.int32)
        if v.type.dtype == "i32"
        else np.asarray(rng.standard_normal(v.type.shape, np.float32))
        for v in inputs
    }
