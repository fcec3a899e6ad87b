"""Gradients of a network's loss by compiled code: those of a training step, handed out instead of used up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnnc.backend.cache import ObjectCache, default_directory
from cnnc.backend.target import Target
from cnnc.backend.unit import Unit
from cnnc.bound import BoundEntry
from cnnc.frontend.network import Network
from cnnc.ir.types import Array
from cnnc.native import Code, Native
from cnnc.params import pack_params, unpack_params
from cnnc.passes.append_updates import AppendUpdates
from cnnc.passes.differentiate import Differentiate
from cnnc.pipeline import compile_graph, training_passes


@dataclass(frozen=True)
class Gradients:
    """The loss; its gradients by every trained parameter and every input, by name; and the running statistics
    after the step."""

    loss: float
    of: Mapping[str, Array]
    statistics: Mapping[str, Array]


def compiled_gradients(
    net: Network, batch: tuple[Array, Array], weights: Mapping[str, Array], target: Target
) -> Gradients:
    """On one thread, for a batch of images and of labels or targets."""
    graph = net.loss_graph()
    statistics = {p for p in graph.params if p.name.endswith((".running_mean", ".running_var"))}
    data, goal = graph.inputs
    wrt = (*(p.name for p in graph.params if p not in statistics), data.name)
    passes = [
        Differentiate(wrt) if isinstance(each, Differentiate) else each
        for each in training_passes(len(batch[0]), net.optimizer)
        if not isinstance(each, AppendUpdates)
    ]
    compilation = compile_graph(graph, passes, target)
    unit = Unit("gradients", target, (("run", compilation.program),))
    cache = ObjectCache(default_directory())
    native = Native(Code.of(unit, compilation.program.workspace_bytes, cache), 1)
    states = {p.name: np.zeros(p.type.shape, p.type.numpy) for p in compilation.plan.graph.params}
    block = pack_params(compilation.plan, {**states, **weights})
    feeds = {data.name: batch[0], goal.name: batch[1]}
    entry = BoundEntry(native, "run", compilation.plan, feeds, block)
    entry()
    shapes = {p.name: p.type.shape for p in graph.params} | {data.name: batch[0].shape}
    gradients = zip(wrt, entry.outputs[-len(wrt) :], strict=True)
    return Gradients(
        float(np.asarray(entry.outputs[0]).item()),
        {name: gradient.reshape(shapes[name]) for name, gradient in gradients},
        unpack_params(compilation.plan, block, statistics),
    )
