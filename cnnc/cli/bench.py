"""`cnnc bench`: how fast a compiled network is here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cnnc.bench import Benchmark, benchmark, measured_peak
from cnnc.cli.common import (
    batch_option,
    check_finite,
    chosen_batch,
    json_flag,
    load_source,
    net_argument,
    print_json,
    print_table,
    shown_bytes,
    shown_seconds,
    threads_option,
    train_flag,
)
from cnnc.cli.options import Compiling, compile_options
from cnnc.layer_times import CallTime, layer_times
from cnnc.roofline import draw_roofline, memory_bandwidth
from cnnc.units import CompiledUnit

COLUMNS = {
    "layer": "left",
    "operation": "left",
    "result": "left",
    "algorithm": "left",
    "time": "right",
    "share": "right",
    "peak": "right",
    "bytes": "right",
}


@click.command(short_help="Time a run or a training step, as a whole or layer by layer.")
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
@click.option("--layers", is_flag=True, help="Time every kernel by itself.")
@click.option(
    "--roofline",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw speed over arithmetic intensity into a .png, .svg or .pdf file.",
)
@compile_options
@json_flag
def bench(
    net: str,
    batch: int | None,
    threads: int,
    train: bool,
    seconds: float,
    layers: bool,
    roofline: Path | None,
    compiling: Compiling,
    as_json: bool,
) -> None:
    """Time a run of NET, or with --train a training step, on random images.

    The peak is what one thread reaches in the same minute with multiply-adds between registers alone;
    shares of it count the multiply-adds of the direct method, so that Winograd may exceed it.

    \b
    Examples:
      cnnc bench examples/lenet5.py
      cnnc bench examples/resnet18.py --train --batch 8 --layers --roofline resnet18.png
    """
    source = load_source(net)
    source.check_runnable()
    compiled = compiling.unit(source, chosen_batch(batch, train), train, threads)
    if layers or roofline:
        _by_layer(compiled, threads, seconds, roofline, as_json)
        return
    result = benchmark(compiled, threads, seconds)
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


def _by_layer(
    compiled: CompiledUnit, threads: int, seconds: float, roofline: Path | None, as_json: bool
) -> None:
    """The table of kernels, and the picture if one is wanted."""
    times, peak = layer_times(compiled, threads, seconds), measured_peak(compiled.unit.target) * threads
    if roofline is not None:
        what = "training step" if compiled.train else "inference"
        title = f"{compiled.source.name}: {what}, batch {compiled.batch}, {compiled.unit.target.name}"
        draw_roofline(roofline, title, times, peak, memory_bandwidth())
    total = sum(t.best for t in times)
    if as_json:
        print_json(
            [
                {**asdict(t), "share": t.best / total, "share_of_peak": t.flops_per_second / peak}
                for t in times
            ]
        )
        return
    print_table(COLUMNS, [_row(t, total, peak) for t in times])
    click.echo(f"\ntotal {shown_seconds(total)}; the peak is {peak / 1e9:.1f} GFLOP/s")


def _row(t: CallTime, total: float, peak: float) -> tuple[str, ...]:
    shape = f"({', '.join(map(str, t.shape))})" if t.shape else "scalar"
    speed = f"{100 * t.flops_per_second / peak:.0f} %" if t.macs else ""
    share = f"{100 * t.best / total:.1f} %"
    return t.layer, t.op, shape, t.algorithm, shown_seconds(t.best), share, speed, shown_bytes(t.nbytes)


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
