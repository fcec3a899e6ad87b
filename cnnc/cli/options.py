"""Options about algorithms and memory, which the subcommands that compile share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click

from cnnc.backend.algorithms import ALGORITHMS
from cnnc.backend.target import Target
from cnnc.passes.choose_algorithms import Preferences
from cnnc.tuning import read_tuning

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


memory_option = click.option(
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
    "--strict", is_flag=True, help="No algorithm that sums across filter taps in another order."
)


def algorithm_options(command: Command) -> Command:
    """`--tune`, `--algorithm` and `--strict`."""
    return _tune(_algorithm(_strict(command)))


def chosen_preferences(tune: Path | None, algorithm: str | None, target: Target) -> Preferences:
    """What the options say. Raises CnncError for a file that cannot be used."""
    return Preferences(algorithm, {} if tune is None else read_tuning(tune, target))
