"""`compile` and `compile_training`: from a network to something that runs here. The Python front door."""

from __future__ import annotations

from pathlib import Path

from cnnc.backend import llvm
from cnnc.backend.cache import ObjectCache, default_directory
from cnnc.backend.target import Target, named_target
from cnnc.frontend.network import Network
from cnnc.ir.graph import Graph
from cnnc.model import Model
from cnnc.native import Native
from cnnc.source import Source, Weights, source_of
from cnnc.trainer import Trainer
from cnnc.units import CompiledUnit, inference_unit, training_unit


def compile(
    net: Network | Graph | Source,
    batch: int = 1,
    threads: int = 1,
    weights: Weights = None,
    target: str = "host",
    cache: bool = True,
) -> Model:
    """Compile for inference, `batch` rows at a time.

    `weights` are arrays by name, a file of them, or None for the network's first weights. `cache`
    keeps kernels on disk. Raises CnncError on what does not fit or cannot run here.
    """
    source = net if isinstance(net, Source) else source_of(net)
    source.check_runnable()
    arrays = source.weights(weights)
    compiled = inference_unit(source, batch, find_target(target))
    return Model(compiled, arrays, load_native(compiled, threads, cache))


def compile_training(
    net: Network | Source,
    batch: int = 64,
    threads: int = 1,
    weights: Weights = None,
    target: str = "host",
    cache: bool = True,
) -> Trainer:
    """Compile forward, loss, backward and update for training, `batch` rows a step; as `compile`."""
    source = net if isinstance(net, Source) else source_of(net)
    arrays = source.weights(weights)
    compiled = training_unit(source, batch, find_target(target))
    return Trainer(compiled, arrays, load_native(compiled, threads, cache))


def find_target(name: str) -> Target:
    """The target of that name; `host` is this machine."""
    return named_target(name, llvm.host())


def load_native(compiled: CompiledUnit, threads: int, cache: bool = True) -> Native:
    """The unit in this process; see `compile` for `threads` and `cache`."""
    directory: Path | None = default_directory() if cache else None
    return Native(compiled.unit, compiled.workspace_bytes, threads, ObjectCache(directory))
