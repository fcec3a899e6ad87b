"""`cnnc build`: a program, a library, an object or text from a network."""

from __future__ import annotations

import click

from cnnc.backend.target import COMMON_THREADS
from cnnc.cli.common import (
    MAX_THREADS,
    batch_option,
    chosen_batch,
    load_source,
    net_argument,
    shown_bytes,
    train_flag,
    weights_option,
)
from cnnc.cli.options import Compiling, compile_options
from cnnc.products import Emit, build_product


@click.command(short_help="A program, library, object or text.")
@net_argument
@click.option("-o", "--out", required=True, metavar="OUT", help="The file to write.")
@click.option(
    "--emit",
    type=click.Choice([kind.value for kind in Emit]),
    default=Emit.PROGRAM.value,
    show_default=True,
    help="What to write. Libraries and objects get their C header beside them.",
)
@train_flag
@weights_option
@click.option("--external-weights", is_flag=True, help="Leave the weights outside.")
@batch_option(None)
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(1, MAX_THREADS),
    default=COMMON_THREADS,
    show_default=True,
    help="Divide the work to suit so many threads. The code runs on any number, with the same bits.",
)
@compile_options
def build(
    net: str,
    out: str,
    emit: str,
    train: bool,
    weights: str | None,
    external_weights: bool,
    batch: int | None,
    threads: int,
    compiling: Compiling,
) -> None:
    """Compile NET to a file that needs no Python: for inference or, with --train, for training.

    Programs and shared libraries are linked by the C compiler `cc`, static libraries made by `ar`;
    objects, LLVM IR and assembly need neither. LLVM IR and assembly hold no weights.

    \b
    Examples:
      cnnc build examples/lenet5.py -o lenet5 --weights lenet5.safetensors
      cnnc build examples/lenet5.py -o lenet5-train --train --batch 32
      cnnc build examples/lenet5.py -o lenet5.o --emit object --target arm64
    """
    kind = Emit(emit)
    if weights is not None and (external_weights or kind.is_text):
        why = f"--emit {emit} holds no weights" if kind.is_text else "--external-weights leaves them outside"
        raise click.UsageError(f"{why}: leave out --weights")
    if train and external_weights:
        raise click.UsageError("--train starts from weights inside: leave out --external-weights")
    source = load_source(net)
    arrays = None if external_weights or kind.is_text else source.weights(weights)
    compiled = compiling.unit(source, chosen_batch(batch, train), train, threads)
    product = build_product(compiled, kind, out, arrays)
    header = f", {product.header}" if product.header else ""
    click.echo(
        f"{product.path}: {emit} for {compiled.unit.target.name}, {shown_bytes(product.nbytes)}{header}"
    )
