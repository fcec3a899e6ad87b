"""`cnnc bench`: how fast a compiled network is here."""

from __future__ import annotations

from dataclasses import asdict

import click

from cnnc.bench import Benchmark, benchmark
from cnnc.cli.common import (
    batch_option,
    check_finite,
    chosen_batch,
    json_flag,
    load_source,
    net_argument,
    print_json,
    shown_seconds,
    target_option,
    threads_option,
    train_flag,
)
from cnnc.compiler import find_target


@click.command(short_help="Time a run or a training step.")
@net_argument
@batch_option(None)
@threads_option
@train_flag
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(0),
    callback=check_finite,
    default=1.0,
    show_default=True,
    help="Measure for about so long.",
)
@target_option
@json_flag
def bench(
    net: str, batch: int | None, threads: int, train: bool, seconds: float, target: str, as_json: bool
) -> None:
    """Time a run of NET, or with --train a training step, on random images.

    The peak is what one thread reaches in the same minute with multiply-adds between registers alone.

    \b
    Examples:
      cnnc bench examples/lenet5.py
      cnnc bench examples/lenet5.py --train --batch 64 --threads 2 --json
    """
    source, machine = load_source(net), find_target(target)
    source.check_runnable()
    result = benchmark(source, chosen_batch(batch, train), threads, train, machine, seconds)
    if as_json:
        rates = {
            "images_per_second": result.images_per_second,
            "flops_per_second": result.flops_per_second,
            "share_of_peak": result.share_of_peak,
        }
        print_json({**asdict(result), **rates})
        return
    for line in _lines(result):
        click.echo(line)


def _lines(result: Benchmark) -> list[str]:
    what, timing = "training step" if result.train else "inference", result.timing
    threads = f"{result.threads} thread{'s' * (result.threads > 1)}"
    return [
        f"{result.name}: {what}, batch {result.batch}, {threads}, {result.target}",
        f"best    {shown_seconds(timing.best)}",
        f"median  {shown_seconds(timing.median)} of {timing.calls} calls",
        f"images  {result.images_per_second:,.0f} a second",
        f"speed   {result.flops_per_second / 1e9:.1f} GFLOP/s, {100 * result.share_of_peak:.0f} % of the "
        f"peak of {result.peak / 1e9:.1f} GFLOP/s a thread",
    ]
