"""Reads the text form that printer.py writes: `parse_graph(print_graph(g), ops) == g`.

Names are resolved and attributes fitted to their fields here, so that a mistake in a hand-written
text is reported at its line. Whether the types are right is the verifier's question.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from types import MappingProxyType
from typing import Any, TypeVar

from cnnc.errors import CnncError, did_you_mean
from cnnc.ir.attributes import attribute_types, convert, type_text
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.lexer import Token, Tokens
from cnnc.ir.location import UNKNOWN, Location
from cnnc.ir.op import Op
from cnnc.ir.types import DTYPES, TensorType

MAX_NESTING = 16
"""Graphs inside graphs; a text nested deeper is a mistake, and would exhaust the stack."""

_LITERALS: Mapping[str, bool | float] = MappingProxyType(
    {"true": True, "false": False, "inf": math.inf, "nan": math.nan}
)

_T = TypeVar("_T")
_Scope = dict[str, Value]
"""The values a graph has defined so far, by name with sigil."""


def parse_graph(text: str, ops: Mapping[str, type[Op]], filename: str = "<text>") -> Graph:
    """The graph that `text` describes, its ops looked up by name in `ops`.

    Raises FormatError, placed at `filename:line`, which says what was expected.
    """
    tokens = Tokens(text, filename)
    graph = GraphParser(tokens, ops).graph()
    tokens.take("end", "nothing more after the graph")
    return graph


class GraphParser:
    """Recursive descent over `tokens`, a method for each thing the text is made of."""

    def __init__(self, tokens: Tokens, ops: Mapping[str, type[Op]]) -> None:
        self._tokens = tokens
        self._ops = ops
        self._attribute_types: dict[type[Op], Mapping[str, object]] = {}
        self._depth = 0

    def graph(self) -> Graph:
        """`graph @name(inputs; params) -> (outputs) { nodes, then updates }`."""
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self._tokens.error(f"graphs are nested more than {MAX_NESTING} deep")
        scope: _Scope = {}
        self._tokens.expect("graph")
        name = self._name(self._tokens.take("name", "the graph's name, such as @net"))
        inputs, params = self._signature(scope)
        self._tokens.expect("->")
        outputs = self._list(lambda: self._tokens.take("name", "an output, such as %1"))
        self._tokens.expect("{")
        nodes, updates = [], []
        while self._tokens.next.kind == "name":
            nodes.append(self._node(scope))
        while self._tokens.accept("update"):
            updates.append(self._update(scope))
        self._tokens.expect("}")
        self._depth -= 1
        found = tuple(self._resolve(scope, token) for token in outputs)
        return Graph(name, inputs, params, tuple(nodes), found, tuple(updates))

    def _signature(self, scope: _Scope) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        """`(%image: f32[1,1,8,8]; @w: f32[4,1,3,3])`, either side possibly empty."""
        params: list[Value] = []
        self._tokens.expect("(")
        inputs = self._declared(scope, "%", "an input, such as %x: f32[1,3,8,8]")
        if self._tokens.accept(";"):
            params = self._declared(scope, "@", "a param, such as @w: f32[8]")
        self._tokens.expect(")")
        return tuple(inputs), tuple(params)

    def _declared(self, scope: _Scope, sigil: str, expected: str) -> list[Value]:
        """Declarations, possibly none, whose values join the scope."""
        if self._tokens.next.kind != "name":
            return []
        pairs = self._separated(lambda: self._declaration(sigil, expected))
        return [self._define(scope, token, value) for token, value in pairs]

    def _declaration(self, sigil: str, expected: str) -> tuple[Token, Value]:
        """`%1: f32[8]`."""
        token = self._tokens.take("name", expected)
        if token.text[0] != sigil:
            raise self._tokens.error(f"expected {expected}, found {token.text!r}", token)
        self._tokens.expect(":")
        return token, Value(self._name(token), self._type())

    def _type(self) -> TensorType:
        """`f32[1,6,28,28]`."""
        token = self._tokens.take("word", "a type, such as f32[1,3,8,8]")
        if token.text not in DTYPES:
            raise self._tokens.error(f"expected a dtype ({', '.join(DTYPES)}), found {token.text!r}", token)
        return TensorType(token.text, tuple(self._list(self._integer, "[", "]")))

    def _node(self, scope: _Scope) -> Node:
        """`%1: f32[8] = op(%0) {attributes} after(%2) layer(l) loc("f":1)`."""
        declared = self._separated(lambda: self._declaration("%", "a result, such as %1: f32[8]"))
        self._tokens.expect("=")
        op_token = self._tokens.take("word", "an op's name")
        op_type = self._op_type(op_token)
        operands = self._values(scope, "an operand, such as %1")
        op = self._op(op_type, op_token)
        after = self._values(scope, "a value, such as %1") if self._tokens.accept("after") else ()
        layer = self._layer() if self._tokens.accept("layer") else ""
        loc = self._location() if self._tokens.accept("loc") else UNKNOWN
        results = tuple(self._define(scope, token, value) for token, value in declared)
        return Node(op, operands, results, layer, loc, after)

    def _values(self, scope: _Scope, expected: str) -> tuple[Value, ...]:
        """`(%1, @w)`."""
        return tuple(self._list(lambda: self._resolve(scope, self._tokens.take("name", expected))))

    def _op_type(self, token: Token) -> type[Op]:
        if token.text not in self._ops:
            raise self._tokens.error(f"unknown op {token.text!r}{did_you_mean(token.text, self._ops)}", token)
        return self._ops[token.text]

    def _op(self, op_type: type[Op], token: Token) -> Op:
        """The op, with the attributes in the braces that follow, if any."""
        values = self._attributes(op_type) if self._tokens.next.text == "{" else {}
        for attribute in fields(op_type):
            if attribute.name not in values and not _has_default(attribute):
                raise self._tokens.error(f"{op_type.name}: attribute {attribute.name} is missing", token)
        try:
            return op_type(**values)
        except CnncError as error:
            raise self._tokens.error(f"{op_type.name}: {error.message}", token) from None

    def _attributes(self, op_type: type[Op]) -> dict[str, object]:
        """`{stride=(1,1), groups=1}`, every value fitted to its field."""
        found: dict[str, object] = {}
        for token, value in self._list(self._attribute, "{", "}"):
            if token.text in found:
                raise self._tokens.error(f"{op_type.name}: attribute {token.text} is given twice", token)
            found[token.text] = self._fitted(op_type, token, value)
        return found

    def _attribute(self) -> tuple[Token, object]:
        """`stride=(1,1)`."""
        token = self._tokens.take("word", "an attribute, such as stride=(1,1)")
        self._tokens.expect("=")
        return token, self._value()

    def _fitted(self, op_type: type[Op], token: Token, value: object) -> object:
        """`value` as the declared type of the attribute that `token` names."""
        if op_type not in self._attribute_types:
            self._attribute_types[op_type] = attribute_types(op_type)
        declared = self._attribute_types[op_type]
        if token.text not in declared:
            hint = did_you_mean(token.text, declared)
            raise self._tokens.error(f"{op_type.name} has no attribute {token.text!r}{hint}", token)
        try:
            return convert(value, declared[token.text])
        except TypeError as error:
            wanted = type_text(declared[token.text])
            message = f"{op_type.name}: attribute {token.text} must be {wanted}: {error}"
            raise self._tokens.error(message, token) from None

    def _value(self) -> object:
        """An attribute's value: a scalar, a tuple of scalars, or a graph."""
        if self._tokens.next.text == "graph":
            return self.graph()
        if self._tokens.next.text == "(":
            return tuple(self._list(self._scalar))
        return self._scalar()

    def _scalar(self) -> bool | int | float | str:
        token = self._tokens.next
        if token.kind == "string":
            return self._string("a string")
        if token.text in _LITERALS:
            return _LITERALS[self._tokens.take("word", "a literal").text]
        return self._number("a number, a string, true, false, a tuple of these or a graph")

    def _number(self, expected: str) -> int | float:
        token = self._tokens.take("number", expected)
        if not re.fullmatch(r"-?[0-9]+", token.text):
            return float(token.text)
        if len(token.text) > len(str(-(2**63))) or not -(2**63) <= int(token.text) < 2**63:
            raise self._tokens.error(f"the integer {token.text[:20]} does not fit 64 bits", token)
        return int(token.text)

    def _integer(self) -> int:
        token = self._tokens.next
        number = self._number("an integer")
        if not isinstance(number, int):
            raise self._tokens.error(f"expected an integer, found {token.text!r}", token)
        return number

    def _string(self, expected: str) -> str:
        token = self._tokens.take("string", expected)
        return self._tokens.unquote(token, token.text)

    def _layer(self) -> str:
        """`(c1)` or `("any text")`, behind the word `layer`."""
        self._tokens.expect("(")
        is_quoted = self._tokens.next.kind == "string"
        layer = self._string("a layer") if is_quoted else self._tokens.take("word", "a layer's name").text
        self._tokens.expect(")")
        return layer

    def _location(self) -> Location:
        """`("lenet5.py":12)`, behind the word `loc`."""
        self._tokens.expect("(")
        file = self._string('a file name in quotes, such as "net.py"')
        self._tokens.expect(":")
        line = self._integer()
        self._tokens.expect(")")
        return Location(file, line)

    def _update(self, scope: _Scope) -> tuple[Value, Value]:
        """`@w = %5`, behind the word `update`."""
        target = self._resolve(scope, self._tokens.take("name", "a param, such as @w"))
        self._tokens.expect("=")
        return target, self._resolve(scope, self._tokens.take("name", "a value, such as %1"))

    def _define(self, scope: _Scope, token: Token, value: Value) -> Value:
        if "%" + value.name in scope or "@" + value.name in scope:
            raise self._tokens.error(f"{token.text} is already defined", token)
        scope[token.text[0] + value.name] = value
        return value

    def _resolve(self, scope: _Scope, token: Token) -> Value:
        key = token.text[0] + self._name(token)
        if key in scope:
            return scope[key]
        swapped = ("@" if key[0] == "%" else "%") + key[1:]
        hint = f"; did you mean {swapped!r}?" if swapped in scope else did_you_mean(key, scope)
        raise self._tokens.error(f"{token.text} is not defined here{hint}", token)

    def _name(self, token: Token) -> str:
        text = token.text[1:]
        return self._tokens.unquote(token, text) if text.startswith('"') else text

    def _list(self, item: Callable[[], _T], start: str = "(", end: str = ")") -> list[_T]:
        """`(item, item)`, possibly empty, possibly with a comma behind the last item."""
        found: list[_T] = []
        self._tokens.expect(start)
        while self._tokens.next.text != end:
            found.append(item())
            if not self._tokens.accept(","):
                break
        self._tokens.expect(end)
        return found

    def _separated(self, item: Callable[[], _T]) -> list[_T]:
        """`item, item`: at least one."""
        found = [item()]
        while self._tokens.accept(","):
            found.append(item())
        return found


def _has_default(attribute: Field[Any]) -> bool:
    return attribute.default is not MISSING or attribute.default_factory is not MISSING
