"""What the subcommands share: their common arguments and options, loading NET, tables and JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from cnnc.backend.target import TARGETS
from cnnc.errors import CnncError, FormatError
from cnnc.frontend.load import load_network
from cnnc.frontend.weights import weights_suffix
from cnnc.source import Source, source_of

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

INFERENCE_BATCH, TRAINING_BATCH, MAX_THREADS = 1, 64, 1024
PIPE_WIDTH = 160
"""Columns of a table where no terminal says how many there are."""

net_argument = click.argument("net", metavar="NET")
train_flag = click.option("--train", is_flag=True, help="The training step instead of inference.")
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs to read.")
threads_option = click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(1, MAX_THREADS),
    default=1,
    show_default=True,
    help="Share the work of a call among this many threads.",
)
target_option = click.option(
    "--target",
    default="host",
    show_default=True,
    metavar="T",
    help=f"The machine to compile for: host, {', '.join(TARGETS)}.",
)
weights_option = click.option(
    "--weights",
    metavar="W",
    help="A .safetensors or .npz file; without it the network's first weights.",
)


def batch_option(default: int | None) -> Decorator[Any]:
    """`--batch`; None stands for 1 for inference and 64 for training."""
    told = f"{INFERENCE_BATCH}, with --train {TRAINING_BATCH}" if default is None else f"{default}"
    return click.option(
        "--batch",
        metavar="N",
        type=click.IntRange(1),
        default=default,
        help=f"Images of one call.  [default: {told}]",
    )


def chosen_batch(batch: int | None, train: bool) -> int:
    """The batch where `batch_option(None)` may have been left out."""
    return batch or (TRAINING_BATCH if train else INFERENCE_BATCH)


def load_source(net: str) -> Source:
    """The network that NET names. Raises CnncError when there is none, or several."""
    return source_of(load_network(net))


def check_weights_suffix(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """Callback of options that name a weights file to write, which fail early rather than after hours."""
    try:
        if path is not None:
            weights_suffix(path)
    except FormatError as error:
        raise click.BadParameter(error.message) from None
    return path


def check_finite(context: click.Context, option: click.Parameter, number: float | None) -> float | None:
    """Callback of options that take a real number: FloatRange lets NaN and infinity pass."""
    if number is not None and not math.isfinite(number):
        raise click.BadParameter(f"{number} is not a finite number")
    return number


def check_place(path: str) -> None:
    """Raise CnncError if a file cannot be made there, before long work whose result it is to hold."""
    if Path(path).is_dir():
        raise CnncError(f"cannot write {path}: it is a directory")
    if not Path(path).absolute().parent.is_dir():
        raise CnncError(f"cannot write {path}: no such file or directory")


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2))


def print_table(columns: Mapping[str, str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; `columns` maps headings to `left` or `right`. Plain text on a pipe."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in columns.items():
        table.add_column(heading, justify="left" if justify == "left" else "right")
    for row in rows:
        table.add_row(*row)
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def shown_bytes(count: int) -> str:
    """`37.6 kB`; decimal units, exact below a thousand."""
    if count < 1000:
        return f"{count} B"
    for unit, size in (("kB", 1e3), ("MB", 1e6)):
        if count < size * 1000:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e9:.1f} GB"


def shown_seconds(seconds: float) -> str:
    """`31.2 us`, `5.40 ms` or `2.10 s`."""
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < size * 1000:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
