"""Training: the loss falls, every step is the reference's, threads and built programs give the same bits."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnc.backend.cache import ObjectCache
from cnnc.backend.llvm import host
from cnnc.compiler import compile, compile_training
from cnnc.errors import CnncError, ShapeError
from cnnc.frontend.network import Network
from cnnc.frontend.weights import load_weights
from cnnc.ir.evaluate import evaluate
from cnnc.ir.types import Array
from cnnc.native import Code, Native
from cnnc.ops.optimizer import SGD, Adam, Optimizer
from cnnc.passes.append_updates import initial_states
from cnnc.passes.draw_masks import first_step
from cnnc.products import Emit, build_product
from cnnc.source import Source, source_of
from cnnc.trainer import Epoch, Trainer
from cnnc.units import inference_unit, training_unit
from tests.small_networks import classifier, digits, dropping, normalizing, regression
from tests.toy import needs_cc

STEPS = 6


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ObjectCache:
    """Kernels of this run of the tests, away from the user's."""
    return ObjectCache(tmp_path_factory.mktemp("cache"))


def trainer_of(net: Network, batch: int, cache: ObjectCache, threads: int = 1) -> Trainer:
    """A trainer that forks at every kernel."""
    source = source_of(net)
    compiled = training_unit(source, batch, replace(host(), fork_flops=0))
    native = Native(Code.of(compiled.unit, compiled.workspace_bytes, cache), threads)
    return Trainer(compiled.interface(False), source.optimizer, source.weights(None), native)


def targets(count: int) -> tuple[Array, Array]:
    """Data for the regression network."""
    rng = np.random.default_rng(count)
    wanted = rng.random((count, 4)).astype(np.float32)
    return rng.standard_normal((count, 2, 8, 8)).astype(np.float32), wanted


def reference_steps(
    source: Source, batches: list[tuple[Array, Array]], rates: list[float]
) -> tuple[list[float], Mapping[str, Array]]:
    """Losses and params of the training graph evaluated in float64, as it was before planning."""
    batch = len(batches[0][0])
    stages = {stage.name: stage.graph for stage in training_unit(source, batch, host()).main.stages}
    step = stages["append_updates"]
    states = initial_states(stages["differentiate"].trained, source.optimizer)
    counter = {name: np.float32(value) for name, value in first_step(source.graph).items()}
    start = {**source.initial_weights(), **states, **counter}
    params = {p.name: start[p.name].reshape(p.type.shape).astype(np.float64) for p in step.params}
    losses, names = [], [v.name for v in step.inputs]
    for (x, y), rate in zip(batches, rates, strict=True):
        wide = y if y.dtype.kind == "i" else y.astype(np.float64)
        feeds = dict(zip(names, (x.astype(np.float64), wide, np.float64(np.float32(rate))), strict=True))
        done = evaluate(step, {n: np.asarray(a) for n, a in feeds.items()}, params)
        losses.append(float(done.outputs[step.outputs[0].name]))
        params = dict(done.params)
    return losses, params


OPTIMIZERS = (
    SGD(lr=0.1),
    SGD(lr=0.05, momentum=0.9, weight_decay=0.01),
    Adam(lr=0.01),
    Adam(lr=0.02, beta1=0.8, beta2=0.99, eps=1e-6, weight_decay=0.1),
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize(
    ("make", "data"),
    [(classifier, digits), (regression, targets), (dropping, digits), (normalizing, digits)],
    ids=["labels", "squares", "dropout", "batch norm"],
)
def test_steps_are_those_of_the_reference(
    make: Callable[[Optimizer], Network],
    data: Callable[[int], tuple[Array, Array]],
    optimizer: Optimizer,
    cache: ObjectCache,
) -> None:
    net = make(optimizer)
    trainer = trainer_of(net, 5, cache)
    x, y = data(5 * STEPS)
    batches = [(x[i : i + 5], y[i : i + 5]) for i in range(0, len(x), 5)]
    rates = [optimizer.lr * (1 + i % 2) for i in range(STEPS)]
    losses = [trainer.step(*batch, rate)[0] for batch, rate in zip(batches, rates, strict=True)]
    expected, params = reference_steps(source_of(net), batches, rates)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    first = net.initial_weights()
    for name, array in trainer.weights().items():
        moved = np.abs(params[name].reshape(array.shape) - first[name]).max()
        error = np.abs(array - params[name].reshape(array.shape)).max()
        assert error <= 1e-3 * moved, f"{name}: off by {error} after moving by {moved}"


def test_a_small_network_learns(cache: ObjectCache) -> None:
    trainer = trainer_of(classifier(), 16, cache)
    seen: list[Epoch] = []
    steps: list[int] = []
    history = trainer.fit(
        digits(200), 8, test=digits(50, seed=1), on_step=lambda: steps.append(1), on_epoch=seen.append
    )
    assert history == seen and [epoch.number for epoch in history] == list(range(1, 9))
    assert len(steps) == 8 * (200 // 16)
    assert history[-1].loss < 0.2 * history[0].loss
    assert history[-1].accuracy is not None and history[-1].accuracy > 0.95
    assert history[-1].test_accuracy is not None and history[-1].test_accuracy > 0.9
    assert trainer.evaluate(*digits(50, seed=1)) == history[-1].test_accuracy


def test_a_squared_error_is_trained_too(cache: ObjectCache) -> None:
    trainer = trainer_of(regression(), 8, cache)
    x, _ = targets(40)
    wanted = np.eye(4, dtype=np.float32)[np.arange(40) % 4]
    history = trainer.fit((x, wanted), 10, lr=0.1)
    assert history[-1].loss < 0.8 * history[0].loss
    assert all(epoch.accuracy is None and epoch.test_accuracy is None for epoch in history)
    assert trainer.step(x[:8], wanted[:8])[1] is None
    for refused in (
        lambda: trainer.evaluate(x, wanted),
        lambda: trainer.fit((x, wanted), 1, test=(x, wanted)),
    ):
        with pytest.raises(CnncError, match="no classes to count right answers of"):
            refused()


@pytest.mark.parametrize("make", [classifier, dropping, normalizing])
@pytest.mark.parametrize("optimizer", [OPTIMIZERS[1], OPTIMIZERS[2]], ids=["sgd", "adam"])
def test_threads_and_runs_give_the_same_bits(
    optimizer: Optimizer, make: Callable[[Optimizer], Network], cache: ObjectCache
) -> None:
    results = []
    for threads in (1, 1, 2, 3):
        trainer = trainer_of(make(optimizer), 16, cache, threads)
        history = trainer.fit(digits(64), 3, test=digits(21, seed=1), seed=5)
        results.append(([replace(epoch, seconds=0.0) for epoch in history], trainer.weights()))
    (history, weights), *others = results
    for other_history, other_weights in others:
        assert other_history == history
        for name, array in weights.items():
            np.testing.assert_array_equal(other_weights[name].view(np.uint32), array.view(np.uint32))


@pytest.mark.parametrize("make", [classifier, normalizing])
@pytest.mark.parametrize("count", [1, 7, 16, 17, 48, 50])
def test_evaluation_counts_every_image_once(
    count: int, make: Callable[[], Network], cache: ObjectCache
) -> None:
    """By the running statistics, whatever the batch."""
    trainer = trainer_of(make(), 16, cache)
    trainer.fit(digits(64), 1)
    x, labels = digits(count, seed=2)
    model = compile(make(), weights=trainer.weights(), cache=False)
    right = int((model(x).argmax(axis=1) == labels).sum())
    before = trainer.weights()
    assert trainer.evaluate(x, labels) == right / count
    for name, array in trainer.weights().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("schedule", "rates"), [("constant", [0.5] * 4), ("linear", [0.5, 0.375, 0.25, 0.125])]
)
def test_the_learning_rate_follows_the_schedule(
    schedule: str, rates: list[float], cache: ObjectCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(classifier(SGD(lr=0.1, schedule=schedule)), 16, cache)
    seen: list[float] = []

    def step(x: Array, labels: Array, lr: float | None = None) -> tuple[float, float | None]:
        seen.append(-1.0 if lr is None else lr)
        return 0.0, 0.0

    monkeypatch.setattr(trainer, "step", step)
    trainer.fit(digits(32), 4, lr=0.5)
    assert seen == [rate for rate in rates for _ in range(2)]
    seen.clear()
    trainer.fit(digits(16), 1)
    assert seen == [float(np.float32(0.1))], "the optimizer's own"


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_weights_are_saved_and_taken_up_again(suffix: str, tmp_path: Path, cache: ObjectCache) -> None:
    trainer, path = trainer_of(classifier(), 16, cache), tmp_path / f"w.{suffix}"
    trainer.fit(digits(32), 1)
    trainer.save(str(path))
    loaded = load_weights(path)
    assert loaded.keys() == classifier().initial_weights().keys()
    for name, array in trainer.weights().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(loaded[name], array)
    again = compile_training(classifier(), 16, weights=str(path), cache=False)
    x, labels = digits(40, seed=3)
    assert again.evaluate(x, labels) == trainer.evaluate(x, labels)
    with pytest.raises(CnncError, match="no such file or directory"):
        trainer.save(str(tmp_path / "missing" / f"w.{suffix}"))


def test_weights_are_copies(cache: ObjectCache) -> None:
    trainer = trainer_of(classifier(), 16, cache)
    first = trainer.weights()
    kept = {name: array.copy() for name, array in first.items()}
    trainer.step(*digits(16))
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])


def test_misfits_are_named(cache: ObjectCache) -> None:
    trainer = trainer_of(classifier(), 4, cache)
    x, labels = digits(4)
    before = trainer.weights()
    for arrays, message in (
        ((x[:3], labels), r"image has shape \(3, 1, 12, 12\); a batch has \(4, 1, 12, 12\)"),
        ((x, labels[:3]), r"labels has shape \(3,\); a batch has \(4,\)"),
        ((x, np.array([0, 1, 3, 2])), "label 2 is 3; labels are 0 to 2"),
        ((x, np.array([0, -1, 1, 2])), "label 1 is -1; labels are 0 to 2"),
        ((x, np.array([0, 2**32, 1, 2])), "label 1 is 4294967296; labels are 0 to 2"),
        ((x, labels + 0.5), "labels are float64; whole numbers are needed"),
    ):
        with pytest.raises(ShapeError, match=message):
            trainer.step(*arrays)
    for name, array in trainer.weights().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(CnncError, match="3 images are fewer than one batch of 4"):
        trainer.fit((x[:3], labels[:3]), 1)
    for call in (lambda: trainer.fit((x, labels[:3]), 1), lambda: trainer.evaluate(x, labels[:3])):
        with pytest.raises(ShapeError, match="there are 4 images and 3 labels"):
            call()
    with pytest.raises(ShapeError, match="there are no images to evaluate"):
        trainer.evaluate(x[:0], labels[:0])


@needs_cc
@pytest.mark.parametrize(
    "optimizer",
    [SGD(lr=0.05, momentum=0.9, weight_decay=0.01), Adam(lr=0.01, schedule="linear")],
    ids=["sgd", "adam"],
)
@pytest.mark.parametrize("make", [classifier, normalizing])
def test_a_built_program_trains_to_the_same_bits(
    make: Callable[[Optimizer], Network], optimizer: Optimizer, tmp_path: Path, cache: ObjectCache
) -> None:
    source = source_of(make(optimizer))
    compiled = training_unit(source, 16, host())
    program, out = tmp_path / "trains", tmp_path / "w.safetensors"
    build_product(compiled, Emit.PROGRAM, program, source.initial_weights())
    x, labels = digits(70)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", labels)
    options = ["--images", "x.npy", "--labels", "y.npy", "--epochs", "3", "--seed", "9", "--threads", "2"]
    subprocess.run([program, *options, "--out", out], cwd=tmp_path, check=True, capture_output=True)
    trainer = trainer_of(make(optimizer), 16, cache)
    trainer.fit((x, labels), 3, seed=9)
    by_program = load_weights(out)
    for name, array in trainer.weights().items():
        np.testing.assert_array_equal(by_program[name].view(np.uint32), array.view(np.uint32))


@needs_cc
def test_a_built_program_infers_to_the_same_bits(tmp_path: Path) -> None:
    source = source_of(classifier())
    weights = source.initial_weights(4)
    program = tmp_path / "infers"
    build_product(inference_unit(source, 4, host()), Emit.PROGRAM, program, weights)
    x, _ = digits(10)
    np.save(tmp_path / "x.npy", x)
    subprocess.run([program, "x.npy", "y.npy"], cwd=tmp_path, check=True, capture_output=True)
    expected = compile(classifier(), batch=4, weights=weights, cache=False)(x)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy").view(np.uint32), expected.view(np.uint32))
