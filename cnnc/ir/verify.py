"""The rules of the layer graph, checked between passes. A broken rule raises VerifyError.

Each rule is one function. They run in an order in which every rule may rely on those before it:
names, then dataflow, then types, then what the graph delivers.
"""

from __future__ import annotations

from collections import Counter

import networkx as nx

from cnnc.errors import CnncError, VerifyError
from cnnc.ir.attributes import is_attribute
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.types import DTYPES


def verify_graph(graph: Graph) -> None:
    """Check every rule, in regions (graphs that are attributes of nodes) too.

    Raises VerifyError with the values in its text, placed at the user's line where there is one.
    """
    _check_single_assignment(graph)
    _check_types_are_sound(graph)
    _check_operands_exist(graph)
    _check_order(graph)
    for node in graph.nodes:
        _check_attributes(node)
        _check_result_types(node)
    _check_outputs(graph)
    _check_updates(graph)


def _check_single_assignment(graph: Graph) -> None:
    """A name is given once, to an input, to a param or to a result."""
    for node in graph.nodes:
        if not node.results:
            raise VerifyError(f"{node.op.name} has no result", node.loc)
    defined = [*graph.inputs, *graph.params, *(v for n in graph.nodes for v in n.results)]
    for name, count in Counter(v.name for v in defined).items():
        if count > 1:
            raise VerifyError(f"the name {name!r} is assigned {count} times in graph {graph.name!r}")


def _check_types_are_sound(graph: Graph) -> None:
    """Dtypes are known and dimensions positive."""
    for value in graph.values.values():
        if value.type.dtype not in DTYPES:
            raise VerifyError(f"{value.name!r} has the unknown dtype {value.type.dtype!r}")
        if any(dim < 1 for dim in value.type.shape):
            raise VerifyError(f"{value.name!r} is {value.type}: dimensions must be positive")


def _check_operands_exist(graph: Graph) -> None:
    for node in graph.nodes:
        for operand in node.operands:
            _check_exists(graph, operand, f"operand of {_label(node)}", node.loc)
        for value in node.after:
            _check_exists(graph, value, f"{_label(node)} waits", node.loc)


def _check_exists(graph: Graph, value: Value, role: str, loc: object = None) -> None:
    """`value` is one of the graph's, under the type it was defined with."""
    defined = graph.values.get(value.name)
    if defined is None:
        raise VerifyError(f"{role}: {value.name!r} is not defined in graph {graph.name!r}", loc)
    if defined.type != value.type:
        text = f"{role}: {value.name!r} is used as {value.type} but defined as {defined.type}"
        raise VerifyError(text, loc)


def _refuse_cycle(graph: Graph) -> None:
    """Raise if the dataflow has a cycle."""
    if nx.is_directed_acyclic_graph(graph.dataflow):
        return
    cycle = nx.find_cycle(graph.dataflow)
    names = " -> ".join(_label(graph.nodes[edge[0]]) for edge in cycle)
    raise VerifyError(f"the dataflow of graph {graph.name!r} has a cycle: {names}")


def _check_order(graph: Graph) -> None:
    """Nodes stand behind the nodes whose results they read or wait for; so there is no cycle."""
    for index, node in enumerate(graph.nodes):
        for operand in node.operands:
            if graph.position.get(operand, -1) >= index:
                _refuse_cycle(graph)
                raise VerifyError(f"{_label(node)} reads {operand.name!r} before it is defined", node.loc)
        for value in node.after:
            if graph.position.get(value, -1) >= index:
                _refuse_cycle(graph)
                raise VerifyError(f"{_label(node)} waits for {value.name!r}, defined behind it", node.loc)


def _check_attributes(node: Node) -> None:
    """The text form can hold every attribute, and regions keep the rules themselves."""
    for name, value in node.op.attributes.items():
        if not is_attribute(value):
            kind = type(value).__name__
            raise VerifyError(f"{_label(node)}: attribute {name} is {value!r}, a {kind}", node.loc)
        if isinstance(value, Graph):
            _check_region(node, name, value)


def _check_region(node: Node, attribute: str, region: Graph) -> None:
    """A region is a verified graph that keeps no tensors between runs."""
    if region.params or region.updates:
        raise VerifyError(f"{_label(node)}: region {attribute} has params or updates", node.loc)
    try:
        verify_graph(region)
    except VerifyError as error:
        text = f"{_label(node)}: region {attribute}: {error.message}"
        raise VerifyError(text, error.location or node.loc) from None


def _check_result_types(node: Node) -> None:
    """The result types are those that the op infers from the operand types."""
    operands = tuple(v.type for v in node.operands)
    try:
        inferred = node.op.infer(*operands)
    except CnncError as error:
        raise VerifyError(f"{_label(node)}: {error.message}", node.loc) from None
    declared = tuple(v.type for v in node.results)
    if inferred != declared:
        text = f"{_label(node)} has the result types {_types(declared)}, its op infers {_types(inferred)}"
        raise VerifyError(text, node.loc)


def _check_outputs(graph: Graph) -> None:
    for output in graph.outputs:
        _check_exists(graph, output, "output")


def _check_updates(graph: Graph) -> None:
    """A param is updated at most once, by a value of its type."""
    params = frozenset(graph.params)
    for param, new in graph.updates:
        _check_exists(graph, param, "update")
        _check_exists(graph, new, f"update of {param.name!r}")
        if param not in params:
            raise VerifyError(f"update of {param.name!r}, which is no param of graph {graph.name!r}")
        if param.type != new.type:
            text = f"update of {param.name!r}, which is {param.type}, by {new.name!r}, which is {new.type}"
            raise VerifyError(text)
    for name, count in Counter(p.name for p, _ in graph.updates).items():
        if count > 1:
            raise VerifyError(f"the param {name!r} is updated {count} times")


def _label(node: Node) -> str:
    """`conv2d %1`, for messages."""
    return f"{node.op.name} {', '.join(f'%{v.name}' for v in node.results)}"


def _types(types: tuple[object, ...]) -> str:
    return f"({', '.join(map(str, types))})"
