"""`python -m benchmarks`: choose the measurements, run them one after another, show what they found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from benchmarks.compile_time import compile_time
from benchmarks.contest import Settings
from benchmarks.convolutions import CONV1X1, CONV3X3, convolution
from benchmarks.instruction_set import HOST, LIMITS, hold_to
from benchmarks.machine import describe
from benchmarks.memory import arenas, peak_memory
from benchmarks.networks import inference, training
from benchmarks.progress import Progress
from benchmarks.render import FIGURES, as_json, rewrite_markdown, show
from benchmarks.report import Report
from benchmarks.zoo import BY_NAME, Entry
from cnnc.errors import CnncError
from cnnc.files import write_whole

Case = Callable[[], Report]
NAMES = ("conv3x3", "conv1x1", "compile", "memory", "inference", "training")


def cases(
    entries: Sequence[Entry], threads: Sequence[int], settings: Settings
) -> Mapping[str, tuple[Case, ...]]:
    """Every measurement by the name `--only` takes, in the order in which they run."""
    return {
        "conv3x3": (lambda: convolution(CONV3X3, settings.seconds),),
        "conv1x1": (lambda: convolution(CONV1X1, settings.seconds),),
        "compile": (compile_time,),
        "memory": (lambda: arenas(entries), peak_memory),
        "inference": tuple(lambda count=count: inference(entries, count, settings) for count in threads),
        "training": tuple(lambda count=count: training(entries, count, settings) for count in threads),
    }


@click.command()
@click.option("--only", metavar="CASE,...", default=",".join(NAMES), show_default=True, help="Run these.")
@click.option(
    "--networks", metavar="NET,...", default=",".join(BY_NAME), show_default=True, help="Compare these."
)
@click.option("--threads", default="1,2", show_default=True, help="Thread counts to compare networks on.")
@click.option("--seconds", default=1.0, show_default=True, help="Time for each contestant of a network.")
@click.option(
    "--compile-limit",
    metavar="SECONDS",
    default=300.0,
    show_default=True,
    help="The longest that torch.compile may take for a network; 0 leaves it out.",
)
@click.option(
    "--target",
    metavar="T",
    type=click.Choice([HOST, *LIMITS]),
    default=HOST,
    show_default=True,
    help="Hold all systems to this instruction set.",
)
@click.option("--json", "data", type=click.Path(path_type=Path), help="Also write all of it, unrounded.")
@click.option(
    "--section", metavar="S", default=FIGURES, show_default=True, help="The part that --markdown rewrites."
)
@click.option("--markdown", type=click.Path(path_type=Path), help="Also rewrite the figures in this file.")
def main(
    only: str,
    networks: str,
    threads: str,
    seconds: float,
    compile_limit: float,
    target: str,
    data: Path | None,
    section: str,
    markdown: Path | None,
) -> None:
    """Measure cnnc beside PyTorch, ONNX Runtime, OpenVINO and the FMA peak, in one process."""
    entries = [BY_NAME[name] for name in _chosen("network", networks, BY_NAME)]
    reports = []
    hold_to(target)
    try:
        with Progress() as progress:
            known = cases(entries, _counts(threads), Settings(seconds, compile_limit, progress, target))
            for case in (case for name in _chosen("case", only, known) for case in known[name]):
                reports.append(case())
                progress.rest()
                show(reports[-1])
        if data is not None:
            write_whole(data, as_json(reports, describe(target)))
        if markdown is not None:
            rewrite_markdown(markdown, reports, describe(target), section)
    except CnncError as error:
        sys.exit(f"error: {error}")
    sys.exit(1 if any(report.failures for report in reports) else 0)


def _chosen(what: str, text: str, known: Mapping[str, object]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise click.BadParameter(f"no {what} {name!r}; there are {', '.join(known)}")
    return names


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"--threads takes whole numbers such as 1,2, not {text!r}")
    return tuple(map(int, parts))


if __name__ == "__main__":
    main()
