"""Runs a plan in memory laid out as it says, node by node with the references of the ops.

If the plan lets one value overwrite another too early, the results differ from evaluate's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cnnc.ir.evaluate import Evaluation, evaluate
from cnnc.ir.graph import Graph, Value
from cnnc.ir.plan import Placement, Plan, Space, is_alias
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
        self._physical(value)[...] = physical

    def load(self, value: Value) -> Array:
        """A copy of what lies where the value lies."""
        return self.plan.layout(value).unpack(self._physical(value).copy(), value.type.shape)

    def run(self) -> None:
        """Run the nodes whose results are not there already."""
        for node in self.plan.graph.nodes:
            if is_alias(self.plan, node):
                continue
            arrays = node.op.reference(*(self.load(o) for o in node.operands))
            for result, array in zip(node.results, arrays, strict=True):
                self.store(result, array)

    def _physical(self, value: Value) -> Array:
        """The value's memory, in the shape it has there."""
        shape = self.plan.layout(value).physical_shape(value.type.shape)
        place = self.plan.placement(value)
        return self.view(place, shape, value.type.numpy, place.pitch)

    def view(self, place: Placement, shape: Sequence[int], dtype: np.dtype, pitch: int) -> Array:
        """Memory from a place on under a shape, with `pitch` bytes (0: as many as they have) from row to row
        of its last dimension."""
        strides = [dtype.itemsize]
        for extent in reversed(shape[1:]):
            strides.insert(0, strides[0] * extent if len(strides) > 1 or not pitch else pitch)
        memory = self.memory[place.space, place.index][place.offset : place.end].view(dtype)
        return as_strided(memory, shape, strides[-len(shape) or 1 :])


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
