"""`python -m benchmarks`: choose the measurements, run them one after another, show what they found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from benchmarks.compile_time import compile_time
from benchmarks.convolutions import CONV1X1, CONV3X3, convolution
from benchmarks.lenet5_image import lenet5_image
from benchmarks.lenet5_step import lenet5_step
from benchmarks.machine import describe
from benchmarks.render import as_json, rewrite_markdown, show
from benchmarks.report import Report
from cnnc.errors import CnncError

Case = Callable[[], Report]


def cases(seconds: float, threads: tuple[int, ...]) -> Mapping[str, tuple[Case, ...]]:
    """Every measurement by the name `--only` takes, in the order in which they run."""
    return {
        "conv3x3": (lambda: convolution(CONV3X3, seconds),),
        "conv1x1": (lambda: convolution(CONV1X1, seconds),),
        "lenet5-image": (lambda: lenet5_image(seconds),),
        "compile": (compile_time,),
        "lenet5-step": tuple(lambda count=count: lenet5_step(seconds, count) for count in threads),
    }


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print one JSON object instead of tables.")
@click.option(
    "--only", metavar="CASE,...", help="Run these: conv3x3, conv1x1, lenet5-image, compile, lenet5-step."
)
@click.option("--threads", default="1,2", show_default=True, help="Thread counts of the training step.")
@click.option("--seconds", default=1.0, show_default=True, help="Time for each contestant of a case.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Also rewrite the figures in this file.")
def main(as_data: bool, only: str | None, threads: str, seconds: float, markdown: Path | None) -> None:
    """Measure cnnc beside PyTorch, ONNX Runtime and the FMA peak, in one process."""
    known = cases(seconds, _counts(threads))
    chosen = only.split(",") if only else list(known)
    for name in chosen:
        if name not in known:
            raise click.BadParameter(f"no case {name!r}; there are {', '.join(known)}")
    reports = []
    try:
        for case in (case for name in chosen for case in known[name]):
            reports.append(case())
            if not as_data:
                show(reports[-1])
        if markdown is not None:
            rewrite_markdown(markdown, reports, describe())
    except CnncError as error:
        sys.exit(f"error: {error}")
    if as_data:
        print(as_json(reports, describe()))


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"--threads takes whole numbers such as 1,2, not {text!r}")
    return tuple(map(int, parts))


if __name__ == "__main__":
    main()
