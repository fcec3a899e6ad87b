"""One compilation for any batch: fewer images give the same bits as all, and nothing beyond them is touched.

A caller's arrays end behind the last image given, where a page begins that nobody may touch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from benchmarks.zoo import ZOO, Entry
from cnnc import units
from cnnc.backend import llvm
from cnnc.backend.cache import ObjectCache
from cnnc.backend.target import Target
from cnnc.errors import ShapeError
from cnnc.frontend import concat, conv2d, dense, flatten, max_pool, mean_pool, relu, softmax
from cnnc.frontend.network import Network
from cnnc.ir.graph import Graph
from cnnc.ir.types import Array
from cnnc.model import Model
from cnnc.native import Code, Native, address
from cnnc.passes.choose_algorithms import NO_PREFERENCES, Preferences
from cnnc.passes.set_batch import SetBatch
from cnnc.source import source_of
from cnnc.units import inference_unit
from tests.native_kernels import Guarded, assert_same_bits, on_runnable_targets
from tests.random_networks import RandomNetwork, arrays, networks
from tests.small_networks import classifier, dropping, normalizing, regression

BATCHES = (1, 2, 3, 8)
SOME_BATCHES = (3, 8)
THREADS = (1, 2)
EXAMPLES = 4


def branching() -> Network:
    """Convolutions of every kind, joined and sliced, with two outputs that the layers before them write."""
    net = Network("branching")
    x = net.input(3, 13, 13)
    wide = conv2d(x, 12, 3, pad=1, activation=relu)
    strided = conv2d(wide, 16, 3, stride=2, pad=1)
    apart = conv2d(wide, 12, 3, stride=2, pad=1, groups=12, activation=relu)
    pooled = max_pool(wide, 3, stride=2, pad=1)
    joined = concat(strided, apart, conv2d(pooled, 10, 1))
    again = conv2d(joined, 24, 3, pad=1, activation=relu)
    net.output(softmax(dense(flatten(mean_pool(again, 7)), 5)))
    return net


def only_convolutions() -> Network:
    """From the caller's array to the caller's array."""
    net = Network("maps")
    net.output(conv2d(conv2d(net.input(9, 7, 7), 17, 3, pad=1), 8, 3, pad=1))
    return net


def only_dense() -> Network:
    net = Network("rows")
    net.output(dense(dense(dense(net.input(37), 70, activation=relu), 33, activation=relu), 130))
    return net


class AnyBatch:
    """A network compiled for up to `batch` images, run on arrays of just as many rows as there are."""

    def __init__(
        self,
        net: Network | Graph,
        batch: int,
        target: Target,
        preferences: Preferences = NO_PREFERENCES,
        cache: ObjectCache | None = None,
    ) -> None:
        self.compiled = inference_unit(source_of(net), batch, target, preferences)
        self.graph, self.batch = SetBatch(batch)(source_of(net).graph), batch
        self._code = Code.of(self.compiled.unit, self.compiled.workspace_bytes, cache or ObjectCache(None))
        source = self.compiled.source
        self._params = arrays(source.graph.params, 1) if source.network is None else source.weights(None)
        self._natives = {threads: Native(self._code, threads) for threads in THREADS}

    @property
    def microbatch(self) -> int:
        return self.compiled.main.program.microbatch

    def run(
        self, feeds: dict[str, Array], images: int, threads: int, given: int | None = None
    ) -> list[Array]:
        """The outputs for the first rows of the feeds; `given` is told to the code instead of `images`."""
        native = self._natives[threads]
        block = native.packed(self.compiled.given(self._params), self.compiled.main.plan.param_bytes)
        native.workspace.view(np.uint8).fill(0xFF)  # as numbers: NaN
        inputs = [Guarded(np.ascontiguousarray(feeds[v.name][:images])) for v in self.graph.inputs]
        outputs = [
            Guarded(np.full((images, *v.type.shape[1:]), np.nan, np.float32)) for v in self.graph.outputs
        ]
        pointers = [address(each.array) for each in (*inputs, *outputs)]
        run = native.function("run", len(pointers) + 4)
        count = images if given is None else given
        run(count, *pointers, address(block), address(native.workspace), native.pool)
        for each in (*inputs, *outputs):
            each.check()
        return [each.array.copy() for each in outputs]

    def check(self) -> None:
        """Every number of images, on one thread and on two."""
        feeds = arrays(self.graph.inputs, 0)
        whole = self.run(feeds, self.batch, 1)
        for images in range(1, self.batch + 1):
            for threads in THREADS:
                found = self.run(feeds, images, threads)
                for part, full in zip(found, whole, strict=True):
                    assert not np.isnan(full).any()
                    assert_same_bits(part, full[:images])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ObjectCache:
    return ObjectCache(tmp_path_factory.mktemp("cache"))


@on_runnable_targets
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(
    "make", [classifier, regression, dropping, normalizing, branching, only_convolutions, only_dense]
)
def test_networks(make: Callable[[], Network], batch: int, target: Target, cache: ObjectCache) -> None:
    AnyBatch(make(), batch, replace(target, fork_flops=0), cache=cache).check()


@on_runnable_targets
@pytest.mark.parametrize("batch", [5, 8])
@pytest.mark.parametrize("make", [classifier, branching, only_convolutions])
def test_networks_in_turns(
    make: Callable[[], Network],
    batch: int,
    target: Target,
    cache: ObjectCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two images at a time; the last turn may have one."""
    eager = replace(target, fork_flops=0)
    at_once = AnyBatch(make(), batch, eager, cache=cache)
    monkeypatch.setattr(units, "microbatch", lambda *_: 2)
    turns = AnyBatch(make(), batch, eager, cache=cache)
    assert (at_once.microbatch, turns.microbatch) == (batch, 2)
    turns.check()
    feeds = arrays(turns.graph.inputs, 0)
    for found, expected in zip(turns.run(feeds, batch, 2), at_once.run(feeds, batch, 1), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.slow
@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)
def test_examples(entry: Entry, cache: ObjectCache) -> None:
    AnyBatch(entry.declare(entry.small), 3, llvm.host(), cache=cache).check()


@on_runnable_targets
@pytest.mark.parametrize(
    "algorithm", ["direct", "winograd 4x4", "winograd 2x2", "space_to_depth winograd 4x4", "strassen"]
)
def test_random_networks(target: Target, algorithm: str) -> None:
    special = {"space_to_depth winograd 4x4": ((7, 7), (2, 2)), "strassen": ((1, 1), (1, 1))}
    suits = () if algorithm == "direct" else (special.get(algorithm, ((3, 3), (1, 1))),)

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(networks(suits))
    def check(network: RandomNetwork) -> None:
        eager, preferences = replace(target, fork_flops=0), Preferences(forced=algorithm)
        for batch in SOME_BATCHES:
            AnyBatch(network.forward, batch, eager, preferences).check()

    check()


def test_any_other_number_of_images_is_taken_for_the_nearest(cache: ObjectCache) -> None:
    net = AnyBatch(branching(), 3, llvm.host(), cache=cache)
    feeds = arrays(net.graph.inputs, 0)
    (whole,) = net.run(feeds, 3, 1)
    for given_, images in ((0, 1), (-1, 1), (-(2**63), 1), (4, 3), (2**63 - 1, 3)):
        assert_same_bits(net.run(feeds, images, 2, given_)[0], whole[:images])


def test_a_model_runs_the_rows_it_is_given(cache: ObjectCache) -> None:
    source = source_of(branching())
    compiled = inference_unit(source, 4, llvm.host())
    native = Native(Code.of(compiled.unit, compiled.workspace_bytes, cache), 2)
    model = Model(compiled.interface(False), source.weights(None), native)
    x = np.random.default_rng(0).normal(size=(11, 3, 13, 13)).astype(np.float32)
    whole = model(x)
    for first, last in ((0, 1), (0, 4), (3, 8), (10, 11), (2, 11)):
        assert_same_bits(model(x[first:last]), whole[first:last])
    with pytest.raises(ShapeError):
        model(x[:0])


def test_most_of_the_work_is_that_of_the_images_given() -> None:
    """Only dense layers in the middle compute more, and layers of few tiles some."""
    for make in (regression, branching, only_convolutions):
        calls = inference_unit(source_of(make()), 8, llvm.host()).main.program.calls
        without = [call.node for call in calls if call.kernel.image_loop is None]
        assert all(node is not None and node.layer.startswith("dense") for node in without)
