"""Text of a kernel -> tokens with their lines, for parser.py; and which words are names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cnnc.errors import FormatError

RESERVED = frozenset({"for", "parallel", "reg", "store", "prefetch", "count", "inf", "nan"})
"""Words a kernel may not use as names, since a statement or an operand starts or ends with them."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_TOKEN = re.compile(
    rf"(?P<name>{_NAME})|(?P<number>[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?)|(?P<sign>\.\.|[-+*=:,(){{}}\[\]])"
)


@dataclass(frozen=True)
class Token:
    """A word of the text; `kind` is name, number, sign or end."""

    kind: str
    text: str
    line: int


def is_name(text: str) -> bool:
    """Whether the text can name a kernel, buffer, value, tile or loop variable."""
    return re.fullmatch(_NAME, text) is not None and text not in RESERVED


def tokenize(text: str, filename: str) -> list[Token]:
    """The tokens in order, closed by one of kind `end`. FormatError at a character that fits none."""
    tokens = []
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        position = 0
        while position < len(line):
            if line[position].isspace():
                position += 1
                continue
            match = _TOKEN.match(line, position)
            if match is None:
                raise FormatError(f"unexpected character {line[position]!r}", f"{filename}:{number}")
            tokens.append(Token(str(match.lastgroup), match.group(), number))
            position = match.end()
    return [*tokens, Token("end", "end of text", max(len(lines), 1))]
