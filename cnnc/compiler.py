"""`compile` and `compile_training`: from a network to something that runs here. The Python front door."""

from __future__ import annotations

from pathlib import Path

from cnnc.backend import llvm
from cnnc.backend.algorithms.book import ALGORITHMS
from cnnc.backend.cache import ObjectCache, default_directory
from cnnc.backend.target import Target, named_target
from cnnc.errors import CnncError, did_you_mean
from cnnc.executable import Executable, Request, executable
from cnnc.frontend.network import Network
from cnnc.ir.graph import Graph
from cnnc.model import Model
from cnnc.native import Code, Native
from cnnc.passes.choose_algorithms import Preferences
from cnnc.source import Source, Weights, source_of
from cnnc.trainer import Trainer
from cnnc.tuning import read_tuning


def compile(
    net: Network | Graph | Source,
    batch: int = 1,
    threads: int = 1,
    weights: Weights = None,
    target: str = "host",
    cache: bool = True,
    tune: str | Path | None = None,
    algorithm: str | None = None,
    strict: bool = False,
    max_memory: int | None = None,
) -> Model:
    """Compile for inference, up to `batch` rows at a time.

    The code is divided to suit `threads` threads; any number gives the same bits. `weights` are arrays by
    name, a file of them, or None for the network's first weights. `cache` keeps kernels and whole networks
    on disk. `tune` is a file of measured choices (`cnnc tune`), `algorithm` the name of one to take wherever
    it applies, and `strict` keeps every sum in the order of the definition. `max_memory` is the most bytes
    of workspace, which is what is needed besides inputs, outputs and parameters. Raises CnncError on what
    does not fit or cannot run here.
    """
    source = net if isinstance(net, Source) else source_of(net)
    source.check_runnable()
    arrays = source.weights(weights)
    chosen = find_target(target).suited_to(threads)
    preferences = chosen_preferences(tune, algorithm, chosen)
    request = Request(source, batch, False, chosen, preferences, strict, max_memory)
    found, native = load(request, threads, ObjectCache(default_directory() if cache else None))
    return Model(found.interface, arrays, native)


def compile_training(
    net: Network | Source,
    batch: int = 64,
    threads: int = 1,
    weights: Weights = None,
    target: str = "host",
    cache: bool = True,
    tune: str | Path | None = None,
    algorithm: str | None = None,
    strict: bool = False,
    max_memory: int | None = None,
) -> Trainer:
    """Compile forward, loss, backward and update for training, `batch` rows a step; as `compile`.

    Within `max_memory` activations are computed again where they are needed, instead of being kept; the
    results are the same bits.
    """
    source = net if isinstance(net, Source) else source_of(net)
    arrays = source.weights(weights)
    chosen = find_target(target).suited_to(threads)
    preferences = chosen_preferences(tune, algorithm, chosen)
    request = Request(source, batch, True, chosen, preferences, strict, max_memory)
    found, native = load(request, threads, ObjectCache(default_directory() if cache else None))
    return Trainer(found.interface, source.optimizer, arrays, native)


def find_target(name: str) -> Target:
    """The target of that name; `host` is this machine."""
    return named_target(name, llvm.host())


def chosen_preferences(tune: str | Path | None, algorithm: str | None, target: Target) -> Preferences:
    """Which algorithms are wanted. Raises CnncError for one there is not, or a file that cannot be used."""
    names = [each.name for each in ALGORITHMS]
    if algorithm is not None and algorithm not in names:
        hint = did_you_mean(algorithm, names)
        raise CnncError(f"no algorithm {algorithm!r}{hint} (known: {', '.join(names)})")
    return Preferences(algorithm, {} if tune is None else read_tuning(tune, target))


def load(request: Request, threads: int, cache: ObjectCache) -> tuple[Executable, Native]:
    """A request's executable, compiled if the cache lacks it, and loaded into this process."""
    found = executable(request, cache)
    interface = found.interface
    code = Code(interface.name, request.target, found.objects, interface.workspace_bytes)
    return found, Native(code, threads)
