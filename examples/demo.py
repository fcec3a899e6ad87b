"""From a network in a Python file to a program that reads digits.

Trains LeNet-5 on the digits in examples/data/mnist, builds build/lenet5, a program that needs nothing
but libc, runs it on the test digits and shows some of them with what it read.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cnnc import Epoch, compile, compile_training
from cnnc.compiler import find_target
from cnnc.frontend.data import load_labelled, save_npy
from cnnc.frontend.load import load_network
from cnnc.frontend.network import Network
from cnnc.products import Emit, build_product
from cnnc.source import source_of
from cnnc.units import inference_unit

HERE = Path(__file__).resolve().parent
MNIST = HERE / "data" / "mnist"
BUILD = HERE.parent / "build"
EPOCHS, BATCH, THREADS = 10, 64, 2
SHOWN = 6
QUADRANTS = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"

Array = npt.NDArray[np.generic]


def main() -> None:
    net = load_network(str(HERE / "lenet5.py"))
    assert isinstance(net, Network)
    train, test = digits(net, "train"), digits(net, "test")
    BUILD.mkdir(exist_ok=True)
    weights = trained_weights(net, train, test)
    program = BUILD / "lenet5"
    build_product(inference_unit(source_of(net), 1, find_target("host")), Emit.PROGRAM, program, weights)
    print(f"built {program.relative_to(HERE.parent)}: {program.stat().st_size:,} bytes with its weights")
    outputs = run_program(program, test[0])
    expected = compile(net, batch=1, weights=weights)(test[0])
    same = "the same, bit for bit, as" if np.array_equal(outputs, expected) else "DIFFERENT from"
    read = outputs.argmax(axis=1)
    print(f"ran it on {len(read)} test digits: {100 * np.mean(read == test[1]):.1f} % read right;", end=" ")
    print(f"its outputs are {same} the model's")
    show(test[0][:SHOWN], read[:SHOWN])
    sys.exit(0 if np.array_equal(outputs, expected) else 1)


def digits(net: Network, part: str) -> tuple[Array, Array]:
    """Images and labels of `train` or `test`, as the network reads them."""
    images, labels = (str(MNIST / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    assert net.classes is not None
    return load_labelled(images, labels, net.inputs[0], net.classes)


def trained_weights(net: Network, train: tuple[Array, Array], test: tuple[Array, Array]) -> dict[str, Array]:
    """The weights after EPOCHS epochs, each of which is reported."""
    trainer = compile_training(net, batch=BATCH, threads=THREADS)
    print(f"training {net.name} on {len(train[0])} digits, {THREADS} threads, batches of {BATCH}")

    def report(epoch: Epoch) -> None:
        print(
            f"epoch {epoch.number}/{EPOCHS}  loss {epoch.loss:.4f}  accuracy {100 * epoch.accuracy:.2f} %"
            f"  test {100 * epoch.test_accuracy:.2f} %  {epoch.seconds:.2f} s"
        )

    history = trainer.fit(train, EPOCHS, test=test, on_epoch=report)
    print(f"test accuracy {100 * history[-1].test_accuracy:.2f} %")
    return trainer.weights()


def run_program(program: Path, images: Array) -> Array:
    """What the program writes for the images."""
    given, written = BUILD / "digits.npy", BUILD / "logits.npy"
    save_npy(str(given), images)
    subprocess.run([program, given, written], check=True)
    outputs: Array = np.load(written)
    return outputs


def show(images: Array, read: Array) -> None:
    """Digits side by side, two pixel rows to a line, and under each what was read."""
    strokes = images[:, 0, 6:26, 6:26] > 0.4
    for row in range(0, 20, 2):
        print("   ".join("".join(quadrants(d[row : row + 2])) for d in strokes))
    print("   ".join(str(r).center(10) for r in read))


def quadrants(rows: Array) -> list[str]:
    """Two rows of pixels as characters of two by two."""
    left, right = rows[:, ::2].astype(int), rows[:, 1::2].astype(int)
    return [QUADRANTS[i] for i in left[0] + 2 * right[0] + 4 * left[1] + 8 * right[1]]


if __name__ == "__main__":
    main()
