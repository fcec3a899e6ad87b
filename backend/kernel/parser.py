"""Text -> Kernel, the inverse of printer.py.

A recursive descent parser over the tokens of tokens.py; line breaks mean no more than spaces. It
checks the grammar only: whether names exist and lanes agree is check.py's question.

    kernel    := "kernel" name "(" [buffer {"," buffer}] ")" block
    buffer    := access name ":" dtype "[" integers "]" ["pitch" integer]
    access    := "read" | "write" | "readwrite" | "stream" | "scratch"
    block     := "{" {statement} "}"
    statement := ["parallel"] "for" name "in" bound ".." bound ["step" integer] ["images" integer] block
               | "reg" name ":" "f32x"lanes "[" integers "]" "=" literal
               | "store" "x"lanes place "," operand ["count" integer]
               | "prefetch" place
               | name ["[" integers "]"] "=" instruction
    bound     := affine | ("max" | "min") "(" affine {"," affine} ")"
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from cnnc.backend.kernel.ir import (
    FUNCTIONS,
    Access,
    Affine,
    Assign,
    Broadcast,
    Buffer,
    Compute,
    Declare,
    For,
    Half,
    Index,
    Instruction,
    Interleave,
    Join,
    Kernel,
    Let,
    Literal,
    Load,
    Name,
    Operand,
    Prefetch,
    Reduce,
    Reg,
    Splat,
    Statement,
    Store,
    Uniform,
)
from cnnc.backend.kernel.tokens import RESERVED, Token, tokenize
from cnnc.errors import FormatError

Item = TypeVar("Item")

WORDS = {"load", "splat", "index", "reduce", "interleave", "join", "half", "broadcast", "uniform", *FUNCTIONS}
"""What an instruction begins with."""


def parse_kernel(text: str, filename: str = "<text>") -> Kernel:
    """The kernel written in `text`. FormatError with `filename:line` where the grammar is broken."""
    parser = _Parser(tokenize(text, filename), filename)
    kernel = parser.kernel()
    parser.expect_end()
    return kernel


class _Parser:
    """A cursor over the tokens; each method reads one piece of the grammar."""

    def __init__(self, tokens: list[Token], filename: str) -> None:
        self._tokens = tokens
        self._position = 0
        self._filename = filename

    def kernel(self) -> Kernel:
        self._expect("kernel")
        name = self._name()
        buffers = self._sequence("(", self._buffer, ")")
        return Kernel(name, buffers, self._block())

    def expect_end(self) -> None:
        if self._token.kind != "end":
            self._fail("the end of the text")

    def _buffer(self) -> Buffer:
        if self._token.text not in {access.value for access in Access}:
            self._fail("read, write, readwrite, stream or scratch")
        access = Access(self._next())
        name = self._name()
        self._expect(":")
        dtype = self._name()
        shape = self._integers()
        return Buffer(name, dtype, shape, access, self._integer() if self._accept("pitch") else 0)

    def _block(self) -> tuple[Statement, ...]:
        self._expect("{")
        statements = []
        while not self._accept("}"):
            statements.append(self._statement())
        return tuple(statements)

    def _statement(self) -> Statement:
        if self._accept("parallel"):
            self._expect("for")
            return self._for(parallel=True)
        if self._accept("for"):
            return self._for(parallel=False)
        if self._accept("reg"):
            return self._declare()
        if self._accept("store"):
            return self._store()
        if self._accept("prefetch"):
            return Prefetch(*self._place())
        name = self._name()
        if self._token.text == "[":
            target = Reg(name, self._integers())
            self._expect("=")
            return Assign(target, self._instruction())
        self._expect("=")
        return Let(name, self._instruction())

    def _for(self, parallel: bool) -> For:
        variable = self._name()
        self._expect("in")
        starts = self._bound("max")
        self._expect("..")
        stops = self._bound("min")
        step = self._integer() if self._accept("step") else 1
        images = self._integer() if self._accept("images") else 0
        return For(variable, starts, stops, step, self._block(), parallel, images)

    def _bound(self, function: str) -> tuple[Affine, ...]:
        if self._token.text == function and self._tokens[self._position + 1].text == "(":
            self._next()
            return self._sequence("(", self._affine, ")")
        return (self._affine(),)

    def _declare(self) -> Declare:
        tile = self._name()
        self._expect(":")
        lanes = self._lanes("f32x")
        shape = self._integers()
        self._expect("=")
        return Declare(tile, lanes, shape, self._literal().value)

    def _store(self) -> Store:
        lanes = self._lanes()
        buffer, index = self._place()
        self._expect(",")
        value = self._operand()
        return Store(buffer, index, value, lanes, self._count(lanes))

    def _instruction(self) -> Instruction:
        if self._token.text not in WORDS:
            self._fail("an instruction")
        word = self._next()
        if word == "interleave":
            half, lanes = self._name(), self._lanes()
            return Interleave(half, self._pair(), lanes)
        if word == "half":
            half, lanes = self._name(), self._lanes()
            return Half(half, self._operand(), lanes)
        if word == "reduce":
            function = self._name()
            lanes = self._lanes()
            return Reduce(function, self._operand(), lanes)
        lanes = self._lanes()
        match word:
            case "load":
                buffer, index = self._place()
                return Load(buffer, index, lanes, self._count(lanes))
            case "splat":
                return Splat(*self._place(), lanes)
            case "index":
                return Index(self._parenthesized(), lanes)
            case "uniform":
                seed = self._integer()
                self._expect(",")
                counter = self._operand()
                self._expect(",")
                return Uniform(seed, counter, self._parenthesized(), lanes)
            case "join":
                return Join(self._pair(), lanes)
            case "broadcast":
                return Broadcast(self._operand(), lanes)
        return Compute(word, self._operands(), lanes)

    def _pair(self) -> tuple[Operand, Operand]:
        first = self._operand()
        self._expect(",")
        return first, self._operand()

    def _operands(self) -> tuple[Operand, ...]:
        operands = [self._operand()]
        while self._accept(","):
            operands.append(self._operand())
        return tuple(operands)

    def _operand(self) -> Operand:
        if self._token.kind != "name" or self._token.text == "inf":
            return self._literal()
        name = self._name()
        return Reg(name, self._integers()) if self._token.text == "[" else Name(name)

    def _literal(self) -> Literal:
        sign = -1.0 if self._accept("-") else 1.0
        if self._token.kind != "number" and self._token.text != "inf":
            self._fail("a number")
        return Literal(sign * float(self._next()))

    def _place(self) -> tuple[str, tuple[Affine, ...]]:
        buffer = self._name()
        return buffer, self._sequence("[", self._affine, "]")

    def _parenthesized(self) -> Affine:
        self._expect("(")
        value = self._affine()
        self._expect(")")
        return value

    def _affine(self) -> Affine:
        value = -self._term() if self._accept("-") else self._term()
        while self._token.text in {"+", "-"}:
            value = value + self._term() if self._next() == "+" else value - self._term()
        return value

    def _term(self) -> Affine:
        if self._token.kind == "name":
            return Affine.variable(self._name())
        factor = self._integer()
        return Affine.variable(self._name()) * factor if self._accept("*") else Affine(factor)

    def _count(self, lanes: int) -> int:
        return self._integer() if self._accept("count") else lanes

    def _lanes(self, prefix: str = "x") -> int:
        match = re.fullmatch(rf"{prefix}(\d+)", self._token.text)
        if match is None:
            self._fail(f"a number of lanes such as {prefix}8")
        self._next()
        return int(match.group(1))

    def _integers(self) -> tuple[int, ...]:
        return self._sequence("[", self._integer, "]")

    def _integer(self) -> int:
        if not self._token.text.isdigit():
            self._fail("an integer")
        return int(self._next())

    def _name(self) -> str:
        if self._token.kind != "name" or self._token.text in RESERVED:
            self._fail("a name")
        return self._next()

    def _sequence(self, opening: str, item: Callable[[], Item], closing: str) -> tuple[Item, ...]:
        self._expect(opening)
        if self._accept(closing):
            return ()
        items = [item()]
        while not self._accept(closing):
            self._expect(",")
            items.append(item())
        return tuple(items)

    @property
    def _token(self) -> Token:
        return self._tokens[self._position]

    def _next(self) -> str:
        text = self._token.text
        self._position += 1
        return text

    def _accept(self, text: str) -> bool:
        if self._token.text != text:
            return False
        self._position += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            self._fail(repr(text))

    def _fail(self, wanted: str) -> NoReturn:
        token = self._token
        raise FormatError(f"expected {wanted}, found {token.text!r}", f"{self._filename}:{token.line}")
