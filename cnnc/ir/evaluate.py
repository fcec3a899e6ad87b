"""Runs a layer graph by the NumPy references of its ops: slow, and the oracle of every test.

References compute in the dtype of what they are fed, so feeding float64 arrays to an f32 graph
gives float64 results; central differences rest on that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnnc.errors import CnncError, ShapeError, VerifyError, did_you_mean
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.types import Array


@dataclass(frozen=True)
class Evaluation:
    """What a run leaves: the outputs by name, and every param by name after the updates."""

    outputs: Mapping[str, Array]
    params: Mapping[str, Array]


def evaluate(graph: Graph, inputs: Mapping[str, Array], params: Mapping[str, Array]) -> Evaluation:
    """Run `graph` once. Arrays are given by name in logical shape; none of them is changed.

    Raises CnncError for a missing or unknown name, ShapeError for a shape or dtype that does not fit.
    """
    _check_names(graph, "input", graph.inputs, inputs)
    _check_names(graph, "param", graph.params, params)
    values = evaluate_values(graph, {**params, **inputs})
    after = {p.name: values[p.name] for p in graph.params}
    after.update({p.name: values[new.name] for p, new in graph.updates})
    return Evaluation({v.name: values[v.name] for v in graph.outputs}, after)


def evaluate_values(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every value of `graph` by name, given its inputs and params by name in `feeds`.

    Raises CnncError for a missing name, ShapeError for a shape or dtype that does not fit.
    """
    values: dict[str, Array] = {}
    for value in (*graph.inputs, *graph.params):
        values[value.name] = _fed(graph, value, feeds)
    for node in graph.nodes:
        results = node.op.reference(*(values[o.name] for o in node.operands))
        for value, array in zip(node.results, results, strict=True):
            values[value.name] = _checked_result(node, value, np.asarray(array))
    return values


def _check_names(graph: Graph, role: str, wanted: tuple[Value, ...], given: Mapping[str, Array]) -> None:
    """Every given name is one of the wanted ones."""
    names = [v.name for v in wanted]
    for name in given:
        if name not in names:
            raise CnncError(f"graph {graph.name!r} has no {role} {name!r}{did_you_mean(name, names)}")


def _fed(graph: Graph, value: Value, feeds: Mapping[str, Array]) -> Array:
    """The array fed for `value`, which must have its shape and its kind of dtype."""
    if value.name not in feeds:
        raise CnncError(f"graph {graph.name!r} needs an array {value.name!r} of type {value.type}")
    array = np.asarray(feeds[value.name])
    if array.shape != value.type.shape:
        shape = ",".join(map(str, array.shape))
        raise ShapeError(f"{value.name!r} is {value.type}, the array given has the shape [{shape}]")
    if array.dtype.kind != value.type.numpy.kind:
        raise ShapeError(f"{value.name!r} is {value.type}, the array given has the dtype {array.dtype}")
    return array


def _checked_result(node: Node, value: Value, array: Array) -> Array:
    """`array`, after checking that the reference kept to the type that the op infers."""
    if array.shape == value.type.shape and array.dtype.kind == value.type.numpy.kind:
        return array
    text = (
        f"reference of {node.op.name} gave {array.dtype}{list(array.shape)} for {value.name!r}: {value.type}"
    )
    raise VerifyError(text, node.loc)
