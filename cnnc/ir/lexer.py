"""Tokens of the layer graph's text form: names, numbers, strings and punctuation, with their lines.

The printer asks which names may stand bare; the parser reads tokens one by one. White space and
line ends only separate tokens, and `#` starts a comment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cnnc.errors import FormatError
from cnnc.ir.location import Location

BARE_NAME = re.compile(r"[\w.]+")
"""A value's or graph's name that stands behind % or @ without quotes."""

BARE_WORD = re.compile(r"[^\W\d][\w.]*")
"""A layer's, op's or attribute's name that stands without quotes."""

_STRING = r'"(?:[^"\\\n]|\\.)*"'
_TOKEN = re.compile(
    rf"""
      (?P<blank>   [ \t\r\n]+ | \#[^\n]* )
    | (?P<name>    [%@](?:{BARE_NAME.pattern}|{_STRING}) )
    | (?P<string>  {_STRING} )
    | (?P<number>  -inf | -?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)? )
    | (?P<word>    {BARE_WORD.pattern} )
    | (?P<mark>    -> | [(){{}}\[\],;:=] )
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Token:
    """`kind` is name, string, number, word, mark or end; `line` counts from 1."""

    kind: str
    text: str
    line: int


class Tokens:
    """The tokens of a text, with one token of look-ahead."""

    def __init__(self, text: str, filename: str) -> None:
        self.filename = filename
        self._tokens = _split(text, filename)
        self.next = next(self._tokens)

    def error(self, message: str, token: Token | None = None) -> FormatError:
        """An error at `token`, or at the next token if none is given."""
        return FormatError(message, Location(self.filename, (token or self.next).line))

    def take(self, kind: str, expected: str) -> Token:
        """The next token, which must be of `kind`; `expected` tells the user what was wanted."""
        if self.next.kind != kind:
            raise self.error(f"expected {expected}, found {self._found()}")
        return self._advance()

    def accept(self, text: str) -> bool:
        """Whether the next token is the mark or word `text`; if so it is consumed."""
        if self.next.kind not in ("mark", "word") or self.next.text != text:
            return False
        self._advance()
        return True

    def expect(self, text: str) -> None:
        """Consume the mark or word `text`, which must come next."""
        if not self.accept(text):
            raise self.error(f"expected {text!r}, found {self._found()}")

    def unquote(self, token: Token, text: str) -> str:
        """The string that the JSON literal `text`, a part of `token`, stands for."""
        try:
            return str(json.loads(text))
        except json.JSONDecodeError as error:
            raise self.error(f"malformed string {text}: {error.msg}", token) from None

    def _advance(self) -> Token:
        token = self.next
        self.next = next(self._tokens, token)
        return token

    def _found(self) -> str:
        return "the end of the text" if self.next.kind == "end" else repr(self.next.text)


def _split(text: str, filename: str) -> Iterator[Token]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise FormatError(f"unexpected character {text[position]!r}", Location(filename, line))
        if match.lastgroup != "blank":
            yield Token(match.lastgroup, match.group(), line)
        line += match.group().count("\n")
        position = match.end()
    yield Token("end", "", line)
