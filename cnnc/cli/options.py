"""Options about algorithms, which the subcommands that compile share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cnnc.backend.algorithms import ALGORITHMS
from cnnc.backend.target import Target
from cnnc.passes.choose_algorithms import Preferences
from cnnc.tuning import read_tuning

Command = TypeVar("Command", bound=Callable[..., Any])

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
