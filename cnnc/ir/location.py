"""Where in the user's code an op was declared; carried by every node to every message and dump."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Location:
    """`lenet5.py:12`. Nodes made by a pass keep the location of the node they stand for."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else ""


UNKNOWN = Location()
