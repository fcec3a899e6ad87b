"""`cnnc tune`: measures the algorithms and keeps the choices in a file."""

from __future__ import annotations

from pathlib import Path

import click

from cnnc.cli.common import (
    batch_option,
    check_finite,
    check_place,
    chosen_batch,
    load_source,
    net_argument,
    print_table,
    shown_seconds,
    target_option,
    threads_option,
    train_flag,
)
from cnnc.compiler import find_target
from cnnc.tune import Tuned
from cnnc.tune import tune as measure
from cnnc.tuning import write_tuning


@click.command(short_help="Measure which algorithms are fastest here, for --tune.")
@net_argument
@batch_option(None)
@threads_option
@train_flag
@click.option("-o", "--out", metavar="FILE", type=click.Path(path_type=Path), required=True, help="The file.")
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(0),
    callback=check_finite,
    default=2.0,
    show_default=True,
    help="Measure each algorithm for about so long.",
)
@target_option
def tune(
    net: str, batch: int | None, threads: int, train: bool, out: Path, seconds: float, target: str
) -> None:
    """Time every algorithm for every contraction of NET and write the fastest ones to a file.

    The file is meant to be kept: `--tune FILE` of the other commands uses it, and so does
    `cnnc.compile(net, tune=FILE)`. What it holds for other targets and contractions stays.

    \b
    Examples:
      cnnc tune examples/resnet18.py -o resnet18.tune.json
      cnnc build examples/resnet18.py -o resnet18 --tune resnet18.tune.json
    """
    check_place(str(out))
    source, machine = load_source(net), find_target(target).suited_to(threads)
    source.check_runnable()

    def tell(algorithm: str) -> None:
        click.echo(f"measuring {algorithm}", err=True)

    found = measure(source, chosen_batch(batch, train), train, machine, threads, seconds, tell)
    write_tuning(out, machine, {each.key: each.fastest for each in found})
    columns = {"layer": "left", "operation": "left", "fastest": "left", "times": "left"}
    print_table(columns, map(_row, found))


def _row(each: Tuned) -> tuple[str, ...]:
    times = (
        f"{name} {shown_seconds(best)}" for name, best in sorted(each.seconds.items(), key=lambda t: t[1])
    )
    return each.layer, each.op, each.fastest, ", ".join(times)
