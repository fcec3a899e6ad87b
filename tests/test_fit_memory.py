"""A limit of memory: training keeps it and its bits, or says what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cnnc.backend.cache import ObjectCache
from cnnc.backend.llvm import host
from cnnc.backend.target import TARGETS
from cnnc.compiler import compile, compile_training, load
from cnnc.errors import CnncError
from cnnc.executable import Request
from cnnc.frontend import batch_norm, concat, conv2d, dense, flatten, max_pool, relu, tanh
from cnnc.frontend.losses import softmax_cross_entropy
from cnnc.frontend.network import Network
from cnnc.frontend.optimizers import SGD
from cnnc.ir.types import Array
from cnnc.passes.choose_algorithms import Preferences
from cnnc.source import source_of
from cnnc.summary import recomputed_nodes, summarize
from cnnc.trainer import Trainer
from cnnc.units import CompiledUnit, training_unit
from tests.small_networks import classifier, digits

BATCH = 16
MACHINE = TARGETS["avx512"]
"""What is planned, not run, is planned for one machine everywhere."""

SHARES = {MACHINE.name: 0.6}
"""Of the memory that a step needs without a limit: what can be kept. For other targets, with other blocks, it
is 0.65."""


def deep() -> Network:
    """Eleven convolutions on 12x12 images, with normalizations, a sum of channels and a pool between."""
    net = Network("deep", optimizer=SGD(lr=0.02, momentum=0.9))
    x = net.input(1, 12, 12)
    for _ in range(3):
        x = batch_norm(conv2d(x, 16, 3, pad=1, bias=False), activation=relu)
    x = concat(x, conv2d(x, 16, 3, pad=1, activation=tanh))
    for _ in range(6):
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


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kernels of these tests, away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def plain() -> CompiledUnit:
    """A training step without a limit."""
    return training_unit(source_of(deep()), BATCH, MACHINE)


def test_less_memory_gives_the_same_bits() -> None:
    source = source_of(deep())
    whole = training_unit(source, BATCH, host()).workspace_bytes
    limit = int(SHARES.get(host().name, 0.65) * whole)
    request = Request(source, BATCH, True, host(), Preferences(), False, limit)
    assert load(request, 1, ObjectCache(None))[0].interface.workspace_bytes <= limit
    expected = trained(compile_training(source, BATCH))
    for threads in (1, 2):
        found = trained(compile_training(source, BATCH, threads, max_memory=limit))
        for name, weights in expected.items():
            np.testing.assert_array_equal(found[name], weights, err_msg=name)


def test_the_limit_holds_on_other_targets() -> None:
    source, machine = source_of(deep()), TARGETS["avx2"]
    limit = int(0.7 * training_unit(source, BATCH, machine).workspace_bytes)
    compiled = training_unit(source, BATCH, machine, max_memory=limit)
    assert compiled.workspace_bytes <= limit
    assert recomputed_nodes(compiled.main)


def test_cheap_values_come_first(plain: CompiledUnit) -> None:
    """The cheapest is the first convolution, of one channel: what is made of it is in no memory at all."""
    limits = (int(share * plain.workspace_bytes) for share in (1, 0.95, 0.6))
    none, few, many = (
        summarize(training_unit(source_of(deep()), BATCH, MACHINE, max_memory=limit)) for limit in limits
    )
    assert none.recomputed == 0 < few.recomputed < many.recomputed
    assert none.recomputed_macs == 0 < few.recomputed_macs < many.recomputed_macs / 50
    assert none.step_macs is not None and many.recomputed_macs < none.step_macs / 3
    assert many.step_macs == none.step_macs + many.recomputed_macs
    assert none.workspace_bytes == plain.workspace_bytes


def test_a_limit_out_of_reach_is_refused_at_the_network(plain: CompiledUnit) -> None:
    net = deep()
    with pytest.raises(CnncError) as caught:
        compile_training(net, BATCH, max_memory=20_000)
    message = str(caught.value)
    assert message.startswith(f"{net.location}: deep: ") and Path(__file__).name in str(net.location)
    assert "deep: a training step in 20,000 bytes of memory is out of reach: the least found is" in message
    assert "alive at its peak are %" in message and "\n" not in message
    assert "f32[16,16,12,12], 147,456 bytes" in message and " of conv2d_" in message
    least = int(message.split("the least found is ")[1].split(";")[0].replace(",", ""))
    assert 20_000 < least < plain.workspace_bytes


def test_inference_has_nothing_to_compute_again() -> None:
    with pytest.raises(CnncError, match="small: inference in 100 bytes of memory is out of reach"):
        compile(classifier(), 4, max_memory=100)


@pytest.mark.parametrize("wrong", [-1, 1.5, "1MB"])
def test_a_limit_is_a_number_of_bytes(wrong: object) -> None:
    with pytest.raises(CnncError, match="max_memory must be a whole number of bytes"):
        compile(classifier(), max_memory=wrong)  # type: ignore[arg-type]
