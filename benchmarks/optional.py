"""Systems that need not be installed: a module that wraps one is imported only if its packages are there."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

INSTALL = "pip install '.[bench]'"


def find(module: str, *packages: str) -> ModuleType | None:
    """`benchmarks.<module>`, or None if one of the packages it imports is not installed."""
    if any(importlib.util.find_spec(package) is None for package in packages):
        return None
    return importlib.import_module(f"benchmarks.{module}")


def missing(name: str) -> str:
    """The note in place of a system's rows."""
    return f"{name} is left out: it is not installed ({INSTALL})"
