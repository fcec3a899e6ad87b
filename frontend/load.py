"""Find the network the command line names: `file.py`, `file.py:name` or a text graph.

A Python file is executed, with its own folder importable, and searched for networks: module-level
`Network` objects and, where it has none, functions without arguments annotated `-> Network`.
"""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from cnnc.errors import CnncError, FormatError
from cnnc.frontend.calls import shown_path
from cnnc.frontend.data import read_file
from cnnc.frontend.network import Network
from cnnc.ir.graph import Graph
from cnnc.ir.location import Location
from cnnc.ir.parser import parse_graph
from cnnc.ops import OPS

# A network, or a function that makes one.
Candidate = Network | Callable[[], Network]


def load_network(spec: str) -> Network | Graph:
    """The network `spec` names. Raises CnncError, at the user's line where there is one."""
    path, name = _split(spec)
    content = read_file(path)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise FormatError(f"{path}: neither a Python file nor a text graph: it is not UTF-8 text") from None
    if path.suffix == ".py":
        return _from_python(path, text, name)
    if re.search(r"^graph @", text, re.MULTILINE):
        return parse_graph(text, OPS, str(path))
    raise FormatError(f"{path}: neither a Python file (.py) nor a text graph ('graph @name(...)')")


def _split(spec: str) -> tuple[Path, str | None]:
    """`dir/file.py:name` cut in two; the name is None where none is given."""
    cut = re.fullmatch(r"(.*\.py):(\w+)", spec)
    return (Path(cut[1]), cut[2]) if cut and not Path(spec).exists() else (Path(spec), None)


def _from_python(path: Path, source: str, name: str | None) -> Network:
    # A name of its own, so that a file named random.py hides no module; registered while it runs
    # because dataclasses and the like look their module up.
    module = ModuleType(f"network_file_{path.stem}")
    module.__file__ = str(path.resolve())
    with _importable(module), _mistakes_placed(path):
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
        candidate = _chosen(path, _candidates(module), name)
        network = candidate if isinstance(candidate, Network) else candidate()
    if not isinstance(network, Network):
        raise CnncError(f"{path}: the network function gives {type(network).__name__}, not a Network")
    return network


def _candidates(module: ModuleType) -> dict[str, Candidate]:
    """The networks of the module and the functions of its own that make one, by name."""
    return {
        name: member
        for name, member in vars(module).items()
        if isinstance(member, Network)
        or (inspect.isfunction(member) and member.__module__ == module.__name__ and _makes_network(member))
    }


def _makes_network(function: Callable[..., object]) -> bool:
    """Whether it can be called without arguments and its annotation says it returns a Network."""
    signature = inspect.signature(function)
    required = [
        p for p in signature.parameters.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL
    ]
    annotation = signature.return_annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return not required and text.strip("'\"").rpartition(".")[2] == "Network"


def _chosen(path: Path, candidates: dict[str, Candidate], name: str | None) -> Candidate:
    if name is not None and name in candidates:
        return candidates[name]
    listed = ", ".join(f"{path}:{n}" for n in candidates)
    if name is not None:
        known = f"; it has {listed}" if listed else ""
        raise CnncError(f"{path}: no network {name!r}{known}")
    if not candidates:
        raise CnncError(f"{path}: no network: assign a Network to a module-level name")
    every = list(candidates.values())
    meant = [candidate for candidate in every if isinstance(candidate, Network)] or every
    if len(set(map(id, meant))) > 1:
        raise CnncError(f"{path}: several networks; say which: {listed}")
    return meant[0]


@contextmanager
def _importable(module: ModuleType) -> Iterator[None]:
    """The module registered and its folder importable while the block runs."""
    folder = str(Path(str(module.__file__)).parent)
    sys.modules[module.__name__] = module
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:  # the file may have changed it
            sys.path.remove(folder)
        sys.modules.pop(module.__name__, None)


@contextmanager
def _mistakes_placed(path: Path) -> Iterator[None]:
    """Turn any exception of the user's file into a CnncError at the line of the file that raised it."""
    try:
        yield
    except CnncError:
        raise
    except SyntaxError as error:
        place = Location(shown_path(error.filename or str(path)), error.lineno or 1)
        raise CnncError(f"syntax error: {error.msg}", place) from None
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        place = Location(shown_path(str(path)), (lines or [1])[-1] or 1)
        text = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
        raise CnncError(text, place) from None
