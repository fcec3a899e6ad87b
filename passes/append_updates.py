"""Makes a training step of a gradient graph: the optimizer's assignments become elementwise nodes.

Stands behind passes/differentiate.py, so that forward, backward and update are one graph and go
through the same passes, planner and kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnc.errors import CnncError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Value
from cnnc.ir.location import UNKNOWN, Location
from cnnc.ir.types import Array, f32
from cnnc.ops.elementwise import emit_expr
from cnnc.ops.optimizer import Assignment, Optimizer
from cnnc.ops.scalar_text import parse_expr
from cnnc.passes.differentiate import Differentiate

LEARNING_RATE = "lr"
"""Name of the input f32[] that a training graph has besides the loss graph's."""

SHARED = "optimizer"
"""Stands where a param's name would in the names of the states that all params share."""


@dataclass(frozen=True)
class AppendUpdates:
    """The gradients, the last outputs, one per trained param in the params' order, are used up by updates.

    The graph gets the input `lr`, the optimizer's states as params (`c1.weight.m` for
    `c1.weight`; `optimizer.beta1_power` for all), the nodes of the optimizer's steps, and the
    updates. Raises CnncError if the last outputs are not the params' gradients.

    graph @net(%x; @w) -> (%loss, %dw) {      graph @net(%x, %lr; @w, @w.m) -> (%loss) {
      ...                                       ...
    }                                    ->     %8 = map(@w.m, %dw) {f="0.9 * a + b"}
                                                %9 = map(@w, %8, %lr) {f="a - c * b"}
                                                update @w = %9
                                                update @w.m = %8
                                              }
    """

    name: ClassVar[str] = "append_updates"
    optimizer: Optimizer

    def __call__(self, graph: Graph) -> Graph:
        gradients = _gradients(graph)
        builder = GraphBuilder.extend(graph)
        rate = builder.input(LEARNING_RATE, f32())
        own = [_declare(builder, self.optimizer, param) for param in graph.trained]
        shared = _declare(builder, self.optimizer, None)
        steps, updates = _Steps(builder, self.optimizer, {}), list(graph.updates)
        after: Mapping[str, Value] = shared
        for param, gradient, states in zip(graph.trained, gradients, own, strict=True):
            with builder.at(*_origin(graph, param)):
                after = steps.run({"lr": rate, "p": param, "g": gradient, **states}, shared)
            updates += [(param, after["p"]), *((states[name], after[name]) for name in states)]
        updates += [(shared[name], after[name]) for name in shared]
        return builder.build(graph.outputs[: -len(gradients)], updates)


def training_graph(loss_graph: Graph, optimizer: Optimizer) -> Graph:
    """A training step: the loss graph, its gradients by every param, and the optimizer's updates."""
    return AppendUpdates(optimizer)(Differentiate()(loss_graph))


def initial_states(params: Sequence[Value], optimizer: Optimizer) -> dict[str, Array]:
    """The optimizer's states before the first step, by name, for the params it trains. They take no memory:
    all elements of one are the same float."""
    return {
        _state_name(param, spec.name): np.broadcast_to(
            np.float32(spec.initial), param.type.shape if param else ()
        )
        for spec in optimizer.states()
        for param in (params if spec.per_tensor else [None])
    }


@dataclass(frozen=True)
class _Steps:
    """Emits the assignments of one training step; `shared` keeps those that all params share."""

    builder: GraphBuilder
    optimizer: Optimizer
    shared: dict[str, Value]

    def run(self, own: Mapping[str, Value], shared: Mapping[str, Value]) -> Mapping[str, Value]:
        """The values of all variables after the assignments for one param."""
        values = {**own, **shared}
        for step in self.optimizer.steps():
            if step.target in shared:
                values[step.target] = self._share(step, values)
            else:
                values[step.target] = emit_expr(self.builder, parse_expr(step.f), values)
        return values

    def _share(self, step: Assignment, values: Mapping[str, Value]) -> Value:
        """The new value of a shared state, computed for the first param that asks."""
        if step.target not in self.shared:
            with self.builder.at("", UNKNOWN):
                self.shared[step.target] = emit_expr(self.builder, parse_expr(step.f), values)
        return self.shared[step.target]


def _gradients(graph: Graph) -> tuple[Value, ...]:
    """The last outputs, which must be the trained params' gradients by their types."""
    if not graph.trained:
        raise CnncError(f"{graph.name} has no params, so there is nothing to train")
    found = graph.outputs[-len(graph.trained) :]
    if [v.type for v in found] != [p.type for p in graph.trained] or len(found) == len(graph.outputs):
        raise CnncError(f"the outputs of {graph.name} are not a loss and the gradients of its params")
    return found


def _declare(builder: GraphBuilder, optimizer: Optimizer, param: Value | None) -> dict[str, Value]:
    """New params for the states that belong to `param`, or to no param in particular."""
    type = param.type if param else f32()
    specs = [spec for spec in optimizer.states() if spec.per_tensor == (param is not None)]
    return {spec.name: builder.param(_state_name(param, spec.name), type) for spec in specs}


def _state_name(param: Value | None, state: str) -> str:
    return f"{param.name if param else SHARED}.{state}"


def _origin(graph: Graph, param: Value) -> tuple[str, Location]:
    """Layer and location of the first node that reads a param."""
    readers = [graph.nodes[i] for i in graph.users[param]]
    return (readers[0].layer, readers[0].loc) if readers else ("", UNKNOWN)
