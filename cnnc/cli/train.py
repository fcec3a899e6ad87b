"""`cnnc train`: trains a network in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cnnc.cli.common import (
    TRAINING_BATCH,
    batch_option,
    check_finite,
    check_place,
    check_weights_suffix,
    load_source,
    net_argument,
    threads_option,
    weights_option,
)
from cnnc.cli.options import Compiling, compile_options
from cnnc.errors import CnncError, UnsupportedError
from cnnc.frontend.data import as_images, load_images, load_labelled, read_array
from cnnc.frontend.inputs import InputSpec
from cnnc.frontend.weights import save_weights
from cnnc.ir.types import Array
from cnnc.source import Source
from cnnc.trainer import Epoch, Labelled, Trainer

EXIT_INTERRUPTED = 130
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Run:
    """What is trained on, and for how long."""

    data: Labelled
    test: Labelled | None
    epochs: int
    lr: float | None
    seed: int


@dataclass
class Progressed:
    """How far training has come: the last epoch and the weights it left."""

    epoch: Epoch | None = None
    weights: dict[str, Array] = field(default_factory=dict)


@click.command(short_help="Train in this process.")
@net_argument
@click.option("--images", required=True, metavar="I", help="Training images, .npy or IDX.")
@click.option("--labels", required=True, metavar="L", help="Their labels, .npy or IDX.")
@click.option("--test-images", metavar="TI", help="Measure the accuracy on these after every epoch.")
@click.option("--test-labels", metavar="TL", help="The labels of the test images.")
@click.option("--epochs", metavar="N", type=click.IntRange(1), default=10, show_default=True, help="Rounds.")
@batch_option(TRAINING_BATCH)
@click.option(
    "--lr",
    metavar="R",
    type=click.FloatRange(0),
    callback=check_finite,
    help="Learning rate.  [default: the optimizer's]",
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Of the images' order.",
)
@threads_option
@weights_option
@click.option("--out", metavar="W", callback=check_weights_suffix, help="Write the trained weights here.")
@compile_options
def train(
    net: str,
    images: str,
    labels: str,
    test_images: str | None,
    test_labels: str | None,
    epochs: int,
    batch: int,
    lr: float | None,
    seed: int,
    threads: int,
    weights: str | None,
    out: str | None,
    compiling: Compiling,
) -> int:
    """Train NET in this process, one line an epoch, with the loss and optimizer it declares.

    Images smaller than the input by an even number of pixels are put in its middle, MNIST's 28x28 in
    LeNet-5's 32x32. Ctrl-C ends the training; --out then gets the weights of the last whole epoch.

    \b
    Example, with D=examples/data/mnist:
      cnnc train examples/lenet5.py --images $D/train-images-idx3-ubyte.gz
          --labels $D/train-labels-idx1-ubyte.gz --epochs 10 --out lenet5.safetensors
    """
    if (test_images is None) != (test_labels is None):
        raise click.UsageError("--test-images and --test-labels go together")
    if out is not None:
        check_place(out)
    source = load_source(net)
    data = _labelled(source, images, labels)
    test = _test_data(source, test_images, test_labels) if test_images and test_labels else None
    trainer = compiling.trainer(source, batch, threads, weights)
    done = _train(trainer, Run(data, test, epochs, lr, seed))
    return _finish(done, epochs, out)


def _labelled(source: Source, images: str, labels: str) -> Labelled:
    """Images with class labels, or with the targets of a squared error."""
    graph = source.loss_graph()
    if len(source.inputs) != 1:
        names = ", ".join(spec.name for spec in source.inputs)
        raise UnsupportedError(f"{source.name} has the inputs {names}; cnnc train serves one (see Trainer)")
    (spec,) = source.inputs
    if source.classes is not None:
        return load_labelled(images, labels, spec, source.classes)
    target = next(v for v in graph.inputs if v.name != spec.name)
    x = load_images(images, spec, center=True)
    y = as_images(read_array(labels), InputSpec(target.name, target.type.shape[1:]), labels)
    if len(x) != len(y):
        raise CnncError(f"{images} has {len(x)} images but {labels} has {len(y)} targets")
    return x, y


def _test_data(source: Source, images: str, labels: str) -> Labelled:
    if source.classes is None:
        raise CnncError(f"{source.name} has no classes, so there is no accuracy to test")
    return _labelled(source, images, labels)


def _train(trainer: Trainer, run: Run) -> Progressed:
    """Train until the end or Ctrl-C."""
    done = Progressed()
    steps = len(run.data[0]) // trainer.batch
    with _reporter(run.epochs, steps) as (on_step, print_line):

        def on_epoch(epoch: Epoch) -> None:
            done.epoch, done.weights = epoch, trainer.weights()
            print_line(epoch_line(epoch, run.epochs))

        try:
            trainer.fit(run.data, run.epochs, run.lr, run.test, run.seed, on_step, on_epoch)
        except KeyboardInterrupt:
            return done
    return done


@contextmanager
def _reporter(epochs: int, steps: int) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """What to call after each step and with each line: a progress bar moves on a terminal only."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        yield (lambda: None), click.echo
        return
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("steps", total=epochs * steps)
        yield (lambda: progress.advance(task)), progress.console.print


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """The line built programs print too: `epoch 1/10  loss 0.4321  accuracy 93.20 %  0.21 s`."""
    parts = [f"epoch {epoch.number}/{epochs}", f"loss {epoch.loss:.4f}"]
    if epoch.accuracy is not None:
        parts.append(f"accuracy {100 * epoch.accuracy:.2f} %")
    if epoch.test_accuracy is not None:
        parts.append(f"test {100 * epoch.test_accuracy:.2f} %")
    return "  ".join([*parts, f"{epoch.seconds:.2f} s"])


def _finish(done: Progressed, epochs: int, out: str | None) -> int:
    """Write the weights and say what became of an interrupted run; the exit status."""
    if done.epoch is None:
        click.echo("cnnc: interrupted before the end of the first epoch: nothing was written", err=True)
        return EXIT_INTERRUPTED
    if out is not None:
        save_weights(out, done.weights)
    if done.epoch.number == epochs:
        return 0
    kept = f"{out} holds its weights" if out is not None else "without --out nothing is kept"
    click.echo(f"cnnc: interrupted after epoch {done.epoch.number}: {kept}", err=True)
    return EXIT_INTERRUPTED
