"""Runs a program's kernels by the interpreter, in memory laid out as its plan says."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.lower import Program
from cnnc.ir.evaluate import Evaluation, evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import DTYPES, Array
from tests.nets import draw
from tests.plan_runner import Machine

NO_STATES: Mapping[str, Array] = MappingProxyType({})

TOLERANCE = 1e-4
"""Of the largest magnitude of a result."""


def run_program(program: Program, inputs: Mapping[str, Array], params: Mapping[str, Array]) -> Evaluation:
    """What the program leaves, by the names that the planned graph has."""
    machine = Machine(program.plan)
    for value in (*program.plan.graph.inputs, *program.plan.graph.params):
        machine.store(value, {**inputs, **params}[value.name].reshape(value.type.shape))
    for call in program.calls:
        arrays = {}
        for buffer, place in zip(call.kernel.arguments, call.arguments, strict=True):
            dtype = np.dtype(DTYPES[buffer.dtype])
            arrays[buffer.name] = machine.view(place, buffer.shape, dtype, buffer.pitch * dtype.itemsize)
        interpret(call.kernel, arrays)
    after = {p.name: machine.load(p) for p in program.plan.graph.params}
    return Evaluation({v.name: machine.load(v) for v in program.plan.graph.outputs}, after)


def exact(graph: Graph, inputs: Mapping[str, Array], params: Mapping[str, Array]) -> Evaluation:
    """The graph's reference in float64."""

    def wide(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in arrays.items()}

    with np.errstate(all="ignore"):
        return evaluate(graph, wide(inputs), wide(params))


def assert_close(found: Array, expected: Array, tolerance: float = TOLERANCE, what: str = "") -> None:
    """Equal up to `tolerance` of the largest magnitude."""
    assert found.shape == expected.shape, what
    largest = np.abs(expected).max(initial=1e-30)
    error = np.abs(found - expected).max(initial=0.0)
    assert error <= tolerance * largest, f"{what}: off by {error} of {largest}"


def check_program(program: Program, graph: Graph, states: Mapping[str, Array] = NO_STATES) -> None:
    """The program's results are those of the graph it was made from, outputs compared by position.

    Params are random but for `states`.
    """
    inputs, params = draw(graph.inputs, 1), {**draw(graph.params, 2), **states}
    found, expected = run_program(program, inputs, params), exact(graph, inputs, params)
    for value, planned in zip(graph.outputs, program.plan.graph.outputs, strict=True):
        assert_close(found.outputs[planned.name], expected.outputs[value.name], what=value.name)
    for name, array in expected.params.items():
        assert_close(found.params[name].reshape(array.shape), array, what=name)
