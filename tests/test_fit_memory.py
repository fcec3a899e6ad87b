"""A limit of memory: training keeps it and its bits, or says what stands in the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cnnc.backend.llvm import host
from cnnc.backend.target import TARGETS
from cnnc.compiler import compile, compile_training
from cnnc.errors import CnncError
from cnnc.frontend import batch_norm, concat, conv2d, dense, flatten, max_pool, relu, tanh
from cnnc.frontend.losses import softmax_cross_entropy
from cnnc.frontend.network import Network
from cnnc.frontend.optimizers import SGD
from cnnc.ir.types import Array
from cnnc.source import source_of
from cnnc.summary import recomputed_nodes, summarize
from cnnc.trainer import Trainer
from cnnc.units import training_unit
from tests.small_networks import classifier, digits

BATCH = 8


def deep() -> Network:
    """Nine convolutions on 12x12 images, with normalizations, a sum of channels and a pool between."""
    net = Network("deep", optimizer=SGD(lr=0.02, momentum=0.9))
    x = net.input(1, 12, 12)
    for _ in range(3):
        x = batch_norm(conv2d(x, 16, 3, pad=1, bias=False), activation=relu)
    x = concat(x, conv2d(x, 16, 3, pad=1, activation=tanh))
    for _ in range(4):
        x = conv2d(x, 16, 3, pad=1, activation=tanh)
    x = max_pool(relu(conv2d(x, 16, 1)), 2)
    net.output(dense(flatten(x), 3))
    net.loss(softmax_cross_entropy)
    return net


def trained(trainer: Trainer) -> dict[str, Array]:
    """The weights after some steps."""
    images, labels = digits(4 * BATCH)
    for start in range(0, len(images), BATCH):
        trainer.step(images[start : start + BATCH], labels[start : start + BATCH])
    return trainer.weights()


@pytest.fixture(scope="module")
def usual() -> int:
    """The workspace without a limit."""
    return training_unit(source_of(deep()), BATCH, host()).workspace_bytes


@pytest.mark.parametrize("share", [0.8, 0.6])
def test_less_memory_gives_the_same_bits(usual: int, share: float) -> None:
    limit = int(share * usual)
    assert training_unit(source_of(deep()), BATCH, host(), max_memory=limit).workspace_bytes <= limit
    expected = trained(compile_training(deep(), BATCH, cache=False))
    for threads in (1, 2):
        found = trained(compile_training(deep(), BATCH, threads, cache=False, max_memory=limit))
        for name, weights in expected.items():
            np.testing.assert_array_equal(found[name], weights, err_msg=name)


@pytest.mark.parametrize("target", ["avx2", "arm64"])
def test_the_limit_holds_on_other_targets(target: str) -> None:
    source, machine = source_of(deep()), TARGETS[target]
    limit = int(0.7 * training_unit(source, BATCH, machine).workspace_bytes)
    compiled = training_unit(source, BATCH, machine, max_memory=limit)
    assert compiled.workspace_bytes <= limit
    assert recomputed_nodes(compiled.main)


def test_cheap_values_come_first(usual: int) -> None:
    few, many = (
        summarize(source_of(deep()), BATCH, True, host(), int(share * usual)) for share in (0.9, 0.55)
    )
    assert few.recomputed_macs < many.recomputed_macs
    assert many.step_macs is not None and many.recomputed_macs < many.step_macs / 3


def test_a_limit_that_is_met_anyway_changes_nothing(usual: int) -> None:
    plain = training_unit(source_of(deep()), BATCH, host())
    roomy = training_unit(source_of(deep()), BATCH, host(), max_memory=usual)
    assert roomy.main == plain.main or roomy.main.plan == plain.main.plan
    assert not recomputed_nodes(roomy.main)


def test_a_limit_out_of_reach_is_refused_at_the_network() -> None:
    net = deep()
    with pytest.raises(CnncError) as caught:
        compile_training(net, BATCH, max_memory=20_000)
    message = str(caught.value)
    assert message.startswith(f"{Path(__file__)}:") or message.startswith(f"{net.location}:")
    assert "deep: a training step in 20,000 bytes of memory is out of reach: the least found is" in message
    assert "alive at its peak are %" in message and "\n" not in message
    assert "f32[8,16,12,12], 73,728 bytes" in message and " of conv2d_" in message
    least = int(message.split("the least found is ")[1].split(";")[0].replace(",", ""))
    assert 20_000 < least < training_unit(source_of(net), BATCH, host()).workspace_bytes


def test_inference_has_nothing_to_compute_again() -> None:
    with pytest.raises(CnncError, match="small: inference in 100 bytes of memory is out of reach"):
        compile(classifier(), 4, max_memory=100)


@pytest.mark.parametrize("wrong", [-1, 1.5, "1MB"])
def test_a_limit_is_a_number_of_bytes(wrong: object) -> None:
    with pytest.raises(CnncError, match="max_memory must be a whole number of bytes"):
        compile(classifier(), max_memory=wrong)  # type: ignore[arg-type]
