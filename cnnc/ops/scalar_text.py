"""The text form of scalar expressions: `max(a, 0.0)`, `a * sigmoid(a)`, `select(a < b, c, d)`.

`parse_expr(print_expr(e)) == e` for every tree. This is how formulas stand in the text form of a
graph and how users may write activations.

    sum     := product (('+' | '-') product)*
    product := unary (('*' | '/') unary)*
    unary   := '-' unary | primary
    primary := number | name | '(' sum ')' | function '(' sum (',' sum)* ')'
             | 'select' '(' sum ('<' | '==') sum ',' sum ',' sum ')'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from cnnc.errors import FormatError
from cnnc.ops.scalar import FUNCTIONS, Call, Const, Expr, Var

_INFIX: Mapping[str, str] = MappingProxyType({"+": "add", "-": "sub", "*": "mul", "/": "div"})
_SYMBOL: Mapping[str, str] = MappingProxyType({function: sign for sign, function in _INFIX.items()})
_COMPARISON: Mapping[str, str] = MappingProxyType({"<": "select_lt", "==": "select_eq"})
_NAMED = tuple(f for f in FUNCTIONS if f not in {*_SYMBOL, *_COMPARISON.values(), "neg"})
_SUM, _PRODUCT, _UNARY = 0, 1, 2

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TOKEN = re.compile(rf"\s*(?:({_NUMBER}|[A-Za-z_]\w*|==|[-+*/(),<])|(\S))", re.ASCII)
_MAX_TOKENS = 500
_MAX_DEPTH = 100


def print_expr(expr: Expr) -> str:
    """The canonical text, with no more parentheses than parsing it back needs."""
    return _print(expr, _SUM)


def _print(expr: Expr, level: int) -> str:
    """The text, in parentheses if the expression binds more loosely than `level`."""
    match expr:
        case Var(name):
            return name
        case Const(value):
            return repr(float(value))
        case Call("add" | "sub" | "mul" | "div" as function, (x, y)):
            own = _SUM if function in ("add", "sub") else _PRODUCT
            text = f"{_print(x, own)} {_SYMBOL[function]} {_print(y, own + 1)}"
            return f"({text})" if own < level else text
        case Call("neg", (Const() as x,)):
            return f"-({_print(x, _SUM)})"  # -1.0 without parentheses is a negative constant
        case Call("neg", (x,)):
            return f"-{_print(x, _UNARY)}"
        case Call("select_lt" | "select_eq" as function, (x, y, u, v)):
            sign = "<" if function == "select_lt" else "=="
            test = f"{_print(x, _SUM)} {sign} {_print(y, _SUM)}"
            return f"select({test}, {_print(u, _SUM)}, {_print(v, _SUM)})"
        case Call(function, args):
            return f"{function}({', '.join(_print(a, _SUM) for a in args)})"
    raise TypeError(f"{expr!r} is no expression")


def parse_expr(text: str) -> Expr:
    """The expression `text` denotes; raises FormatError that names the text and the place in it."""
    parser = _Parser(text)
    expr = parser.sum()
    parser.expect("")
    return expr


class _Parser:
    """Recursive descent over the tokens of one formula; the empty token is its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, int]] = []
        for match in _TOKEN.finditer(text):
            self._tokens.append((match.group(1) or match.group(2), match.start(match.lastindex or 0)))
            if match.group(2):
                raise self._error(f"{match.group(2)!r} is not part of the language", self._tokens[-1][1])
        if len(self._tokens) > _MAX_TOKENS:
            raise FormatError(f"a formula of {len(self._tokens)} symbols; at most {_MAX_TOKENS} are read")
        self._tokens.append(("", len(text)))
        self._next = 0
        self._depth = 0

    def sum(self) -> Expr:
        expr = self._product()
        while self._peek() in ("+", "-"):
            expr = Call(_INFIX[self._take()], (expr, self._product()))
        return expr

    def expect(self, token: str) -> None:
        if self._peek() != token:
            raise self._error(f"expected {token or 'the end'!r}, found {self._peek() or 'the end'!r}")
        self._take()

    def _product(self) -> Expr:
        expr = self._unary()
        while self._peek() in ("*", "/"):
            expr = Call(_INFIX[self._take()], (expr, self._unary()))
        return expr

    def _unary(self) -> Expr:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"nested deeper than {_MAX_DEPTH}")
        expr = self._negation() if self._peek() == "-" else self._primary()
        self._depth -= 1
        return expr

    def _negation(self) -> Expr:
        self._take()
        if _is_number(self._peek()):
            return Const(-float(self._take()))
        return Call("neg", (self._unary(),))

    def _primary(self) -> Expr:
        token = self._peek()
        if _is_number(token):
            return Const(float(self._take()))
        if token == "(":
            self._take()
            expr = self.sum()
            self.expect(")")
            return expr
        if not token[:1].isalpha() and token[:1] != "_":
            raise self._error(f"expected a value, found {token or 'the end'!r}")
        at = self._tokens[self._next][1]
        name = self._take()
        return self._call(name, at) if self._peek() == "(" else Var(name)

    def _call(self, function: str, at: int) -> Expr:
        self._take()
        if function == "select":
            return self._select()
        if function not in _NAMED:
            raise self._error(f"unknown function {function!r}; there are select, {', '.join(_NAMED)}", at)
        args = [self.sum()]
        while self._peek() == ",":
            self._take()
            args.append(self.sum())
        self.expect(")")
        arity = FUNCTIONS[function].arity
        if len(args) != arity:
            raise self._error(f"{function} takes {arity} arguments, got {len(args)}", at)
        return Call(function, tuple(args))

    def _select(self) -> Expr:
        args = [self.sum()]
        if self._peek() not in _COMPARISON:
            raise self._error(f"expected '<' or '==', found {self._peek() or 'the end'!r}")
        function = _COMPARISON[self._take()]
        args.append(self.sum())
        for _ in range(2):
            self.expect(",")
            args.append(self.sum())
        self.expect(")")
        return Call(function, tuple(args))

    def _peek(self) -> str:
        return self._tokens[self._next][0]

    def _take(self) -> str:
        token = self._tokens[self._next][0]
        self._next += 1
        return token

    def _error(self, message: str, at: int | None = None) -> FormatError:
        column = (self._tokens[self._next][1] if at is None else at) + 1
        return FormatError(f"formula {self._text!r}, column {column}: {message}")


def _is_number(token: str) -> bool:
    return token == "inf" or token[:1] == "." or token[:1].isdigit()
