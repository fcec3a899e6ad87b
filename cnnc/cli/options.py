"""How a network is compiled: the options that the subcommands share, and what they stand for."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import click

from cnnc.backend.algorithms.book import ALGORITHMS, Algorithms
from cnnc.backend.target import COMMON_THREADS, Target
from cnnc.cli.common import target_option
from cnnc.compiler import chosen_preferences, compile, compile_training, find_target
from cnnc.executable import Request
from cnnc.model import Model
from cnnc.passes.choose_algorithms import ChooseAlgorithms
from cnnc.source import Source
from cnnc.trainer import Trainer
from cnnc.units import CompiledUnit

Command = TypeVar("Command", bound=Callable[..., Any])

UNITS: Mapping[str, int] = MappingProxyType(
    {"": 1, "B": 1}
    | {f"{prefix}B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T"), 1)}
    | {f"{prefix}iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T"), 1)}
)
"""Bytes of each unit; `kB`, `MB` are decimal and `KiB`, `MiB` binary."""


def parse_bytes(
    context: click.Context | None, option: click.Parameter | None, text: str | None
) -> int | None:
    """Callback of options that take an amount of memory: `500MB`, `1.5 GiB`, `65536`."""
    if text is None:
        return None
    units = {unit.lower(): size for unit, size in UNITS.items()}
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([a-z]*)", text.strip().lower())
    if found is None or found[2] not in units:
        known = ", ".join(unit for unit in UNITS if unit)
        raise click.BadParameter(f"{text!r} is no amount of memory such as 500MB, 2GiB or 65536 ({known})")
    return int(Fraction(found[1]) * units[found[2]])


_memory = click.option(
    "--max-memory",
    metavar="BYTES",
    callback=parse_bytes,
    help="Use no more workspace than this, such as 500MB or 2GiB. Training computes activations again to "
    "keep within it.",
)
_tune = click.option(
    "--tune",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Use the choices that `cnnc tune` measured and wrote there.",
)
_algorithm = click.option(
    "--algorithm",
    metavar="A",
    type=click.Choice([a.name for a in ALGORITHMS]),
    help=f"Force an algorithm wherever it applies: {', '.join(a.name for a in ALGORITHMS)}.",
)
_strict = click.option(
    "--strict", is_flag=True, help="No algorithm that sums in another order than the definition."
)


@dataclass(frozen=True)
class Compiling:
    """How a command compiles: what the options of `compile_options` say."""

    target: str
    tune: Path | None
    algorithm: str | None
    strict: bool
    max_memory: int | None

    def machine(self, threads: int = COMMON_THREADS) -> Target:
        """The target, its code divided to suit so many threads. Raises CnncError for one there is not."""
        return find_target(self.target).suited_to(threads)

    def algorithms(self, train: bool) -> ChooseAlgorithms:
        """The pass that chooses algorithms as the options say."""
        machine = self.machine()
        preferences = chosen_preferences(self.tune, self.algorithm, machine)
        return ChooseAlgorithms(Algorithms(machine, self.strict, train=train), preferences)

    def unit(self, source: Source, batch: int, train: bool, threads: int = COMMON_THREADS) -> CompiledUnit:
        """The network for inference or training. Raises CnncError for what cannot be compiled so."""
        machine = self.machine(threads)
        preferences = chosen_preferences(self.tune, self.algorithm, machine)
        request = Request(source, batch, train, machine, preferences, self.strict, self.max_memory)
        return request.compiled()

    def model(self, source: Source, batch: int, threads: int, weights: str | None) -> Model:
        """The network for inference in this process."""
        return compile(source, batch, threads, weights, **self._keywords())

    def trainer(self, source: Source, batch: int, threads: int, weights: str | None) -> Trainer:
        """The network for training in this process."""
        return compile_training(source, batch, threads, weights, **self._keywords())

    def _keywords(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def compile_options(command: Command) -> Command:
    """The options of every command that compiles; the command gets them as `compiling: Compiling`."""

    @functools.wraps(command)
    def gathered(
        *args: Any,
        target: str,
        tune: Path | None,
        algorithm: str | None,
        strict: bool,
        max_memory: int | None,
        **others: Any,
    ) -> Any:
        return command(*args, compiling=Compiling(target, tune, algorithm, strict, max_memory), **others)

    options = (target_option, _memory, _tune, _algorithm, _strict)
    return functools.reduce(lambda made, option: option(made), reversed(options), cast(Command, gathered))
