"""`cnnc summary`: the layers of a network and what they cost."""

from __future__ import annotations

from dataclasses import asdict

import click

from cnnc.cli.common import (
    batch_option,
    chosen_batch,
    json_flag,
    load_source,
    net_argument,
    print_json,
    print_table,
    shown_bytes,
    train_flag,
)
from cnnc.cli.options import Compiling, compile_options
from cnnc.summary import LayerSummary, Summary, summarize

COLUMNS = {
    "layer": "left",
    "ops": "left",
    "output": "left",
    "parameters": "right",
    "MACs": "right",
    "activations": "right",
}


@click.command(short_help="Layers, shapes, parameters, work and memory.")
@net_argument
@batch_option(None)
@train_flag
@compile_options
@json_flag
def summary(net: str, batch: int | None, train: bool, compiling: Compiling, as_json: bool) -> None:
    """List the layers of NET: shapes, parameters, multiply-accumulates (MACs) and activation memory.

    Below them stand the totals, and the memory the compiled code needs: the planned arena beside the
    most bytes alive at one time, than which no arena can be smaller, and with --max-memory what is computed
    again to keep within it.

    \b
    Examples:
      cnnc summary examples/lenet5.py
      cnnc summary examples/lenet5.py --train --batch 64 --json
      cnnc summary examples/resnet18.py --train --batch 8 --max-memory 150MB
    """
    facts = summarize(compiling.unit(load_source(net), chosen_batch(batch, train), train))
    if as_json:
        totals = {"parameters": facts.parameters, "macs": facts.macs}
        print_json({**asdict(facts), **totals, "activation_bytes": facts.activation_bytes})
        return
    print_table(COLUMNS, [*map(_row, facts.layers), _totals(facts)])
    click.echo()
    for line in _memory(facts):
        click.echo(line)


def _row(layer: LayerSummary) -> tuple[str, ...]:
    shape = f"({', '.join(map(str, layer.shape))})" if layer.shape else "scalar"
    numbers = (f"{n:,}" if n else "" for n in (layer.parameters, layer.macs))
    return layer.name, " + ".join(layer.ops), shape, *numbers, shown_bytes(layer.activation_bytes)


def _totals(facts: Summary) -> tuple[str, ...]:
    return "total", "", "", f"{facts.parameters:,}", f"{facts.macs:,}", shown_bytes(facts.activation_bytes)


def _memory(facts: Summary) -> list[str]:
    what = "training step" if facts.train else "inference"
    kernels = f"{facts.kernels} kernel{'' if facts.kernels == 1 else 's'}"
    lines = [f"{facts.name}: {what}, batch {facts.batch}, {facts.target}, {kernels}"]
    if facts.microbatch < facts.batch:
        lines.append(f"at a time       {facts.microbatch} images, whose maps the caches hold")
    if facts.step_macs is not None:
        lines.append(f"MACs of a step  {facts.step_macs:,} (forward and backward)")
    state = " and optimizer state" if facts.train else ""
    lines.append(f"parameters      {shown_bytes(facts.param_bytes)} of memory{state}")
    bound = shown_bytes(facts.bound_bytes)
    lines.append(f"arena           {shown_bytes(facts.arena_bytes)}; at most {bound} are alive at one time")
    lines.append(
        f"workspace       {shown_bytes(facts.workspace_bytes)}: the arena, and a thread's scratch memory"
    )
    if facts.recomputed:
        values = f"{facts.recomputed} activation{'' if facts.recomputed == 1 else 's'}"
        lines.append(f"computed again  {values} in the backward pass, {facts.recomputed_macs:,} MACs")
    return lines
