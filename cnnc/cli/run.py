"""`cnnc run`: computes a network's outputs for arrays in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np

from cnnc.cli.common import (
    batch_option,
    check_place,
    json_flag,
    load_source,
    net_argument,
    print_json,
    threads_option,
    weights_option,
)
from cnnc.cli.options import Compiling, compile_options
from cnnc.errors import CnncError, did_you_mean
from cnnc.frontend.data import as_images, read_array, save_npy
from cnnc.frontend.inputs import InputSpec
from cnnc.ir.types import Array

PRINTED_ELEMENTS = 1000
"""Beyond so many elements an output is printed in part."""


@click.command(short_help="Outputs for arrays in files.")
@net_argument
@click.argument("inputs", metavar="INPUT.npy...", nargs=-1, required=True)
@click.option("-o", "--out", "outs", metavar="OUT.npy", multiple=True, help="Write an output here.")
@weights_option
@batch_option(1)
@threads_option
@compile_options
@json_flag
def run(
    net: str,
    inputs: tuple[str, ...],
    outs: tuple[str, ...],
    weights: str | None,
    batch: int,
    threads: int,
    compiling: Compiling,
    as_json: bool,
) -> None:
    """Compute the outputs of NET for one image or a batch of them, in .npy or IDX files.

    uint8 pixels are scaled as the network declares, floats are taken as they are. An output has a
    batch axis if the inputs have. Several inputs are given in order or as name=INPUT.npy, several
    outputs likewise. Without -o the outputs are printed.

    \b
    Examples:
      cnnc run examples/lenet5.py digit.npy --weights lenet5.safetensors
      cnnc run net.py left=a.npy right=b.npy -o c.npy --batch 16
    """
    source = load_source(net)
    source.check_runnable()
    places = _assigned("output", [v.name for v in source.graph.outputs], outs) if outs else {}
    for place in places.values():
        check_place(place)
    files = _assigned("input", [spec.name for spec in source.inputs], inputs)
    feeds, is_single = _read(source.inputs, files)
    results = compiling.model(source, batch, threads, weights).run(feeds)
    shaped = {name: array[0] if is_single else array for name, array in results.items()}
    for name, place in places.items():
        save_npy(place, shaped[name])
    if as_json:
        print_json({n: {"shape": list(a.shape), "values": a.tolist()} for n, a in shaped.items()})
    elif not places:
        _print(shaped)


def _assigned(kind: str, names: Sequence[str], arguments: Sequence[str]) -> dict[str, str]:
    """Files by name; arguments that name nothing go to what is left, in order. All are needed."""
    given: dict[str, str] = {}
    plain: list[str] = []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if equals and name in names:
            given[name] = path
        elif equals and not Path(argument).exists():
            raise CnncError(f"no {kind} {name!r}{did_you_mean(name, names)} (known: {', '.join(names)})")
        else:
            plain.append(argument)
    free = [name for name in names if name not in given]
    if len(given) + len(plain) != len(arguments) or len(free) != len(plain):
        listed = ", ".join(names)
        raise CnncError(f"files given: {len(arguments)}; needed, one for each {kind}: {listed}")
    return {**given, **dict(zip(free, plain, strict=True))}


def _read(specs: Sequence[InputSpec], files: Mapping[str, str]) -> tuple[dict[str, Array], bool]:
    """The inputs with a batch axis, and whether none of the files has one."""
    arrays = {spec.name: read_array(files[spec.name]) for spec in specs}
    single = [spec.name for spec in specs if arrays[spec.name].shape == spec.shape]
    if single and len(single) != len(specs):
        raise CnncError(f"{files[single[0]]} has no batch axis, but other inputs have one")
    feeds = {spec.name: as_images(arrays[spec.name], spec, files[spec.name]) for spec in specs}
    empty = [name for name, images in feeds.items() if not len(images)]
    if empty:
        raise CnncError(f"{files[empty[0]]} has no images")
    return feeds, bool(single)


def _print(outputs: Mapping[str, Array]) -> None:
    for name, array in outputs.items():
        click.echo(f"{name} ({', '.join(map(str, array.shape))})")
        text = np.array2string(
            array, precision=6, suppress_small=True, max_line_width=110, threshold=PRINTED_ELEMENTS
        )
        click.echo(text)
