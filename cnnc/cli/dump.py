"""`cnnc dump`: a network at any level of the compiler, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from cnnc.backend.kernel.printer import print_kernel
from cnnc.backend.llvm import CodeGenerator
from cnnc.cli.common import batch_option, chosen_batch, load_source, net_argument, target_option, train_flag
from cnnc.cli.options import memory_option
from cnnc.compiler import find_target
from cnnc.errors import CnncError, did_you_mean
from cnnc.ir.diff import diff_texts
from cnnc.ir.plan_text import print_plan
from cnnc.ir.printer import print_graph
from cnnc.passes.runner import Stage, run_passes
from cnnc.pipeline import inference_passes, training_passes
from cnnc.source import Source
from cnnc.units import CompiledUnit, inference_unit, training_unit

STAGES = ("graph", "planned", "kernels", "llvm", "asm")


@click.command(short_help="The network at any level of the compiler.")
@net_argument
@click.option(
    "--stage", type=click.Choice(STAGES), default="graph", show_default=True, help="The level to show."
)
@train_flag
@click.option("--after", metavar="PASS", help="The graph as this pass left it; `source`: as declared.")
@click.option("--diff", "difference", metavar="PASS", help="What this pass changed, as a unified diff.")
@batch_option(None)
@target_option
@memory_option
def dump(
    net: str,
    stage: str,
    train: bool,
    after: str | None,
    difference: str | None,
    batch: int | None,
    target: str,
    max_memory: int | None,
) -> None:
    """Print NET as the compiler sees it: layer graph, planned graph, kernels, LLVM IR or assembly.

    Without --after the graph is shown after all passes. Graphs can be read back: they are a NET too.
    A pass that runs twice is PASS the first time and PASS:2 the second. With --max-memory the graph is
    that of the code for the target, where activations may be computed again.

    \b
    Examples:
      cnnc dump examples/lenet5.py --after source
      cnnc dump examples/lenet5.py --train --diff fuse_epilogues
      cnnc dump examples/lenet5.py --stage kernels --target avx2
    """
    if after is not None and difference is not None:
        raise click.UsageError("--after and --diff exclude each other")
    if stage != "graph" and (after or difference):
        raise click.UsageError("--after and --diff show graphs; they need --stage graph")
    source, images = load_source(net), chosen_batch(batch, train)
    unit = training_unit if train else inference_unit
    if stage != "graph":
        text = _lowered_text(unit(source, images, find_target(target), max_memory=max_memory), stage)
    elif max_memory is not None:
        compiled = unit(source, images, find_target(target), max_memory=max_memory)
        text = _graph_text(_named(compiled.main.stages), after, difference)
    else:
        text = _graph_text(_named(_stages(source, images, train)), after, difference)
    click.echo(text, nl=False)


def _stages(source: Source, batch: int, train: bool) -> tuple[Stage, ...]:
    """The stages that are the same for all targets."""
    if train:
        return run_passes(source.loss_graph(), training_passes(batch, source.optimizer))
    return run_passes(source.graph, inference_passes(batch))


def _named(stages: Sequence[Stage]) -> Mapping[str, tuple[Stage, Stage]]:
    """For each pass by its name on the command line, the stages before and behind it."""
    named: dict[str, tuple[Stage, Stage]] = {}
    for number, stage in enumerate(stages):
        runs = 1 + sum(earlier.name == stage.name for earlier in stages[:number])
        name = stage.name if runs == 1 else f"{stage.name}:{runs}"
        named[name] = (stages[max(number - 1, 0)], stage)
    return named


def _graph_text(stages: Mapping[str, tuple[Stage, Stage]], after: str | None, difference: str | None) -> str:
    name = after or difference or list(stages)[-1]
    if name not in stages:
        raise CnncError(f"no pass {name!r}{did_you_mean(name, stages)} (known: {', '.join(stages)})")
    before, behind = (print_graph(stage.graph) for stage in stages[name])
    if difference is None:
        return behind
    return diff_texts(before, behind, f"before {name}", f"after {name}")


def _lowered_text(compiled: CompiledUnit, stage: str) -> str:
    if stage == "planned":
        return print_plan(compiled.main.plan)
    if stage == "kernels":
        return "\n".join(map(print_kernel, compiled.unit.kernels))
    text = compiled.unit.module_ir()
    return text if stage == "llvm" else CodeGenerator(compiled.unit.target).assembly(text)
