"""Text form of the layer graph, which parser.py reads back to an equal graph.

    graph @net(%image: f32[1,1,32,32]; @c1.weight: f32[6,1,5,5]) -> (%1) {
      %1: f32[1,6,28,28] = conv2d(%image, @c1.weight) {stride=(1,1), groups=1} layer(c1) loc("net.py":12)
      update @c1.weight = %9
    }

Inputs come before the semicolon, params behind it. A graph that is an attribute (the body of a
fused node) is printed in full, indented, inside the braces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from textwrap import indent

from cnnc.ir.attributes import is_attribute
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.lexer import BARE_NAME, BARE_WORD
from cnnc.ir.location import UNKNOWN
from cnnc.ir.op import Op

INDENT = "  "
LINE_WIDTH = 110

Annotate = Callable[[Value], str]


def no_annotation(value: Value) -> str:
    """What stands behind a value's type in the layer graph: nothing."""
    return ""


def print_graph(graph: Graph, annotate: Annotate = no_annotation) -> str:
    """The graph as text, with a newline at the end.

    `annotate` gives what stands behind the type where a value is defined, but not in regions.
    """
    params = frozenset(p.name for p in graph.params)
    outputs = ", ".join(print_value(v, params) for v in graph.outputs)
    lines = [print_node(n, params, annotate) for n in graph.nodes]
    lines += [f"update {print_value(p, params)} = {print_value(v, params)}" for p, v in graph.updates]
    body = "".join(indent(line, INDENT) + "\n" for line in lines)
    return f"{_signature(graph, params, annotate)} -> ({outputs}) {{\n{body}}}\n"


def print_node(node: Node, params: AbstractSet[str], annotate: Annotate = no_annotation) -> str:
    """One node without indentation; `params` names the values to print as @name."""
    results = ", ".join(_declaration(v, params, annotate) for v in node.results)
    operands = ", ".join(print_value(v, params) for v in node.operands)
    text = f"{results} = {node.op.name}({operands}){print_attributes(node.op)}"
    if node.after:
        text += f" after({', '.join(print_value(v, params) for v in node.after)})"
    if node.layer:
        text += f" layer({node.layer if BARE_WORD.fullmatch(node.layer) else json.dumps(node.layer)})"
    if node.loc != UNKNOWN:
        text += f" loc({json.dumps(node.loc.file)}:{node.loc.line})"
    return text


def print_value(value: Value, params: AbstractSet[str]) -> str:
    """`@name` for a param, `%name` for any other value; quoted if the name is no plain word."""
    return ("@" if value.name in params else "%") + _name(value.name)


def print_attributes(op: Op) -> str:
    """` {stride=(1,1), groups=1}` with a blank in front; empty for an op without attributes."""
    texts = [f"{name}={_attribute(value)}" for name, value in op.attributes.items()]
    if not texts:
        return ""
    if not any("\n" in text for text in texts):
        return f" {{{', '.join(texts)}}}"
    return f" {{\n{indent(_comma_lines(texts), INDENT)}\n}}"


def _signature(graph: Graph, params: AbstractSet[str], annotate: Annotate) -> str:
    """Name, inputs and params: on one line if they fit, else one declaration a line."""
    inputs = [_declaration(v, params, annotate) for v in graph.inputs]
    weights = [_declaration(v, params, annotate) for v in graph.params]
    groups = [inputs, weights] if weights else [inputs]
    start = f"graph @{_name(graph.name)}("
    line = "; ".join(", ".join(group) for group in groups)
    if len(start) + len(line) < LINE_WIDTH:
        return f"{start}{line})"
    block = ";\n".join(_comma_lines(group) for group in groups)
    return f"{start}\n{indent(block, INDENT)}\n)"


def _comma_lines(texts: Iterable[str]) -> str:
    return ",\n".join(texts)


def _declaration(value: Value, params: AbstractSet[str], annotate: Annotate) -> str:
    return f"{print_value(value, params)}: {value.type}{annotate(value)}"


def _name(name: str) -> str:
    return name if BARE_NAME.fullmatch(name) else json.dumps(name)


def _attribute(value: object) -> str:
    if not is_attribute(value):
        raise TypeError(f"an attribute cannot be {value!r} of type {type(value).__name__}")
    if isinstance(value, Graph):
        return print_graph(value).rstrip("\n")
    if isinstance(value, tuple):
        items = ",".join(_attribute(item) for item in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(float(value))
    return json.dumps(value)
