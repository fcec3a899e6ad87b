"""A compiled network as bytes: objects, and what a caller must know. What the cache keeps whole networks as.

`compile` finds an executable in the cache by the text of the graph, or makes it through a CompiledUnit;
Model and Trainer need nothing else, so a network that was compiled before starts without any compiling.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cnnc
from cnnc.backend.cache import ObjectCache
from cnnc.backend.interface import Interface, Port, Weight
from cnnc.backend.llvm import version
from cnnc.backend.objects import object_maker
from cnnc.backend.proven import Listener, heard_by_nobody
from cnnc.backend.target import Target
from cnnc.ir.printer import print_graph
from cnnc.passes.choose_algorithms import Preferences
from cnnc.source import Source
from cnnc.units import CompiledUnit, inference_unit, training_unit
from cnnc.version import VERSION

_LENGTH = 8
"""Bytes of the number that says how long the head is."""


@dataclass(frozen=True)
class Request:
    """Everything that decides what is compiled."""

    source: Source
    batch: int
    train: bool
    target: Target
    preferences: Preferences
    strict: bool
    max_memory: int | None = None

    @property
    def key(self) -> str:
        """A text that equal requests to equal compilers share."""
        graph = self.source.loss_graph() if self.train else self.source.graph
        optimizer = repr(self.source.optimizer) if self.train else ""
        options = (
            self.batch,
            self.train,
            self.strict,
            self.max_memory,
            self.preferences.forced,
            *self.preferences.tuned.items(),
        )
        ports = repr(self.source.inputs)
        parts = (VERSION, version(), _code_state(), repr(self.target), repr(options), optimizer, ports)
        return "\n".join((*parts, print_graph(graph)))

    def compiled(self, listener: Listener = heard_by_nobody) -> CompiledUnit:
        """All that comes before machine code; `listener` hears of kernels while others are still written.

        Raises CnncError for what cannot be compiled so.
        """
        unit = training_unit if self.train else inference_unit
        options = (self.preferences, self.strict, self.max_memory)
        with _no_collecting():
            return unit(self.source, self.batch, self.target, *options, listener)


@dataclass(frozen=True)
class Executable:
    """Object code for this kind of processor and its interface."""

    interface: Interface
    objects: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """A head in JSON, its length in front of it, and the objects one behind the other."""
        head = {"interface": asdict(self.interface), "sizes": [len(o) for o in self.objects]}
        text = json.dumps(head).encode()
        return b"".join((len(text).to_bytes(_LENGTH, "little"), text, *self.objects))

    @classmethod
    def from_bytes(cls, data: bytes) -> Executable:
        """The inverse of `to_bytes`."""
        end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
        head = json.loads(data[_LENGTH:end])
        objects = []
        for size in head["sizes"]:
            objects.append(data[end : end + size])
            end += size
        return cls(_interface(head["interface"]), tuple(objects))


def executable(request: Request, cache: ObjectCache) -> Executable:
    """The executable of a request, from the cache or compiled now."""

    def built() -> bytes:
        with _no_collecting(), object_maker(request.target, cache) as maker:
            compiled = request.compiled(maker.begin)
            return Executable(compiled.interface(False), compiled.unit.objects(maker)).to_bytes()

    return Executable.from_bytes(cache.get(f"executable\n{request.key}", built))


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Compiling makes many small objects and no rubbish in cycles: looking for some takes long."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


def _interface(fields: dict[str, object]) -> Interface:
    """An interface from its JSON, in which tuples have become lists."""
    rebuilt = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    for name, kind in (("inputs", Port), ("outputs", Port), ("weights", Weight)):
        entries = fields[name]
        assert isinstance(entries, list)
        rebuilt[name] = tuple(kind(**{**entry, "shape": tuple(entry["shape"])}) for entry in entries)
    return Interface(**rebuilt)  # type: ignore[arg-type]


def _code_state() -> str:
    """A hash of the compiler's own files by size and time: another compiler makes other code."""
    roots = [Path(folder) for folder in cnnc.__path__]
    for package in ("frontend", "passes", "backend"):
        roots += [Path(folder) for folder in getattr(cnnc, package).__path__]
    files = sorted(path for root in roots for path in root.rglob("*.py"))
    stats = (path.stat() for path in files)
    return hashlib.sha256(repr([(s.st_size, s.st_mtime_ns) for s in stats]).encode()).hexdigest()
