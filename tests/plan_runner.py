"""Runs a plan in memory laid out as it says, node by node with the references of the ops.

If the plan lets one value overwrite another too early, the results differ from evaluate's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cnnc.ir.evaluate import Evaluation, evaluate
from cnnc.ir.graph import Graph, Value
from cnnc.ir.op import Trait
from cnnc.ir.plan import Plan, Space
from cnnc.ir.types import Array
from tests.nets import draw

GARBAGE = 0xA5


class Machine:
    """The arena, the param block and a buffer for each input and output, filled with garbage."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        sizes = {(Space.ARENA, 0): plan.arena_bytes, (Space.PARAM, 0): plan.param_bytes}
        for value in (*plan.graph.inputs, *plan.graph.outputs):
            place = plan.placement(value)
            sizes[place.space, place.index] = place.nbytes
        self.memory = {key: np.full(size, GARBAGE, np.uint8) for key, size in sizes.items()}

    def store(self, value: Value, array: Array) -> None:
        """Lay the array out where the value lies."""
        physical = self.plan.layout(value).pack(np.asarray(array, value.type.numpy))
        self._bytes(value)[:] = physical.reshape(-1).view(np.uint8)

    def load(self, value: Value) -> Array:
        """A copy of what lies where the value lies."""
        layout = self.plan.layout(value)
        physical = self._bytes(value).copy().view(value.type.numpy)
        return layout.unpack(physical.reshape(layout.physical_shape(value.type.shape)), value.type.shape)

    def run(self) -> None:
        """Run the nodes that are not mere views of their operand."""
        for node in self.plan.graph.nodes:
            if node.op.has(Trait.VIEW) and node.result.name in self.plan.in_place:
                continue
            arrays = node.op.reference(*(self.load(o) for o in node.operands))
            for result, array in zip(node.results, arrays, strict=True):
                self.store(result, array)

    def _bytes(self, value: Value) -> Array:
        place = self.plan.placement(value)
        return self.memory[place.space, place.index][place.offset : place.end]


def run_plan(plan: Plan, inputs: Mapping[str, Array], params: Mapping[str, Array]) -> Evaluation:
    """What the plan's run leaves, by the names that the planned graph has."""
    machine = Machine(plan)
    for value in (*plan.graph.inputs, *plan.graph.params):
        machine.store(value, {**inputs, **params}[value.name])
    machine.run()
    after = {p.name: machine.load(p) for p in plan.graph.params}
    return Evaluation({v.name: machine.load(v) for v in plan.graph.outputs}, after)


def check_same_bits(graph: Graph, plan: Plan) -> None:
    """The plan's run leaves what the graph's evaluation does, outputs compared by position."""
    inputs, params = draw(graph.inputs, 1), draw(graph.params, 2)
    with np.errstate(all="ignore"):
        expected, found = evaluate(graph, inputs, params), run_plan(plan, inputs, params)
    for value, planned in zip(graph.outputs, plan.graph.outputs, strict=True):
        np.testing.assert_array_equal(found.outputs[planned.name], expected.outputs[value.name])
    for name, array in expected.params.items():
        np.testing.assert_array_equal(found.params[name], array)
