"""`cnnc dump`: a network at any level of the compiler, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from cnnc.backend.kernel.printer import print_kernel
from cnnc.backend.llvm import CodeGenerator
from cnnc.cli.common import batch_option, chosen_batch, load_source, net_argument, train_flag
from cnnc.cli.options import Compiling, compile_options
from cnnc.errors import CnncError, did_you_mean
from cnnc.ir.diff import diff_texts
from cnnc.ir.plan_text import print_plan
from cnnc.ir.printer import print_graph
from cnnc.passes.runner import Stage, run_passes
from cnnc.pipeline import inference_passes, training_passes
from cnnc.source import Source
from cnnc.units import CompiledUnit

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
@compile_options
def dump(
    net: str,
    stage: str,
    train: bool,
    after: str | None,
    difference: str | None,
    batch: int | None,
    compiling: Compiling,
) -> None:
    """Print NET as the compiler sees it: layer graph, planned graph, kernels, LLVM IR or assembly.

    Without --after the graph is shown after all passes. Graphs can be read back: they are a NET too.
    A pass that runs twice is PASS the first time and PASS:2 the second. With --max-memory activations may
    be computed again.

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
    if stage != "graph":
        text = _lowered_text(compiling.unit(source, images, train), stage)
    elif compiling.max_memory is not None:
        stages = compiling.unit(source, images, train).main.stages
        text = _graph_text(_named(stages), after, difference)
    else:
        text = _graph_text(_named(_stages(source, images, train, compiling)), after, difference)
    click.echo(text, nl=False)


def _stages(source: Source, batch: int, train: bool, compiling: Compiling) -> tuple[Stage, ...]:
    """What the passes make of a network, without the kernels. What depends on the weights alone is shown
    where it is used, though it is computed when they are packed."""
    algorithms = compiling.algorithms(train)
    if train:
        return run_passes(source.loss_graph(), training_passes(batch, source.optimizer, algorithms))
    return run_passes(source.graph, inference_passes(batch, algorithms))


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
