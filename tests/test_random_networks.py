"""Random networks as machine code beside their references in float64: results, gradients, running statistics.

With every algorithm forced in turn, for every target that this machine runs, on one thread and on two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cnnc.backend.algorithms.book import ALGORITHMS, Algorithms
from cnnc.backend.cache import ObjectCache
from cnnc.backend.target import TARGETS, Target
from cnnc.backend.unit import Unit
from cnnc.bound import BoundEntry
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import Array
from cnnc.native import Code, Native
from cnnc.ops.optimizer import SGD
from cnnc.params import pack_params, unpack_params
from cnnc.passes.append_updates import AppendUpdates
from cnnc.passes.choose_algorithms import ChooseAlgorithms, Preferences
from cnnc.passes.differentiate import Differentiate, gradient_graph
from cnnc.passes.draw_masks import DrawMasks
from cnnc.passes.drop_dropout import DropDropout
from cnnc.passes.runner import Pass
from cnnc.passes.use_batch_statistics import UseBatchStatistics, running_statistics
from cnnc.pipeline import Compilation, compile_graph, training_passes
from cnnc.source import source_of
from cnnc.units import inference_unit
from tests.native_kernels import RUNNABLE, assert_same_bits
from tests.program_runner import assert_close, exact
from tests.random_networks import RandomNetwork, arrays, networks

FORWARD_LIMIT, GRADIENT_LIMIT = 1e-4, 1e-3
SMALL_GRADIENT = 1e-3
"""Gradients below this share of the largest one may be all rounding: a bias before a batch norm has none."""

SEEDS = range(4)
NOISE, DRAWS = 3e-6, 8
"""Of the largest magnitude of an array: what stands for rounding."""

ROUNDINGS = 32
"""How much farther from float64 gradients may be than those of the references in float32, whose sums are
pairwise: that of a bias before a batch norm, say, is nothing but rounding."""

TINY = float(np.finfo(float).tiny)

ONE, TWO = (1, 1), (2, 2)

KERNELS = {
    "direct": (),
    "by images": (),
    "winograd 5x5": (((3, 3), ONE), ((3, 3), TWO)),
    "winograd 4x4": (((3, 3), ONE), ((3, 3), TWO)),
    "winograd 3x3": (((5, 5), ONE),),
    "winograd 2x2": (((3, 3), ONE), ((5, 5), ONE), ((3, 3), TWO)),
    "winograd 4x1": (((3, 1), ONE),),
    "winograd 1x4": (((1, 3), ONE),),
    "winograd 2x1": (((3, 1), ONE),),
    "winograd 1x2": (((1, 3), ONE),),
    "inline winograd 5x5": (((3, 3), ONE),),
    "inline winograd 4x4": (((3, 3), ONE),),
    "space_to_depth winograd 5x5": (((5, 5), TWO),),
    "space_to_depth winograd 4x4": (((7, 7), TWO), ((5, 5), TWO), ((11, 9), (4, 3))),
    "space_to_depth winograd 2x2": (((7, 7), TWO),),
    "strassen": (((1, 1), ONE),),
    "strassen by images": (((1, 1), ONE),),
}
"""The kernels, and their strides, that each algorithm is for."""

EXAMPLES = 3
"""Of each algorithm; the first is the smallest there is. Compiling takes a second or two for each."""


@dataclass(frozen=True)
class Results:
    """What a run leaves by name: outputs, gradients, and the params that follow the batches."""

    outputs: Mapping[str, Array]
    gradients: Mapping[str, Array]
    statistics: Mapping[str, Array]


def test_every_algorithm_has_its_kernels() -> None:
    assert list(KERNELS) == [algorithm.name for algorithm in ALGORITHMS]


@pytest.mark.parametrize("algorithm", KERNELS)
def test_results_and_gradients_are_the_references(algorithm: str, request: pytest.FixtureRequest) -> None:
    """By default of a few networks, always the same; `--networks N` tries N others."""
    count = request.config.getoption("--networks")

    @settings(
        max_examples=count or EXAMPLES,
        deadline=None,
        derandomize=count is None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=(HealthCheck.too_slow,),
    )
    @given(networks(KERNELS[algorithm]), st.sampled_from(RUNNABLE))
    def check(network: RandomNetwork, target: str) -> None:
        check_network(network, TARGETS[target], algorithm)

    check()


def check_network(network: RandomNetwork, target: Target, algorithm: str) -> None:
    """Every kernel that can be divided is, also where that does not pay."""
    eager, preferences = replace(target, fork_flops=0), Preferences(forced=algorithm)
    check_forward(network, eager, preferences)
    check_training(network, eager, preferences)


def check_forward(network: RandomNetwork, target: Target, preferences: Preferences) -> None:
    """On one thread and on two, and for fewer images than the batch: the same bits."""
    graph = network.forward
    feeds, params = arrays(graph.inputs, 0), arrays(graph.params, 1)
    compiled = inference_unit(source_of(graph), network.batch, target, preferences)
    code = Code.of(compiled.unit, compiled.workspace_bytes, ObjectCache(None))

    def outputs(threads: int, images: int) -> Array:
        native, plan = Native(code, threads), compiled.main.plan
        block = native.packed(compiled.given(params), plan.param_bytes)
        entry = BoundEntry(native, "run", plan, feeds, block, images)
        entry()
        return entry.outputs[0]

    found, (value,) = outputs(1, network.batch), graph.outputs
    assert_close(found, exact(graph, feeds, params).outputs[value.name], FORWARD_LIMIT, value.name)
    assert_same_bits(outputs(2, network.batch), found)
    for images in {1, network.batch - 1} - {0}:
        some = outputs(2, images)
        assert_same_bits(some[:images], found[:images])
        assert not some[images:].any(), "written behind the last image"


def check_training(network: RandomNetwork, target: Target, preferences: Preferences) -> None:
    """The loss and the statistics strictly; gradients unless they hang on rounding, then by other weights."""
    graph = network.loss
    step = TrainingStep.compile(graph, target, preferences)
    worst = []
    for number in SEEDS:
        feeds, params = arrays(graph.inputs, number), arrays(graph.params, 10 + number)
        found, expected = step.run(feeds, params), reference(graph, wide(feeds), wide(params))
        for name, array in {**expected.outputs, **expected.statistics}.items():
            assert_close({**found.outputs, **found.statistics}[name], array, GRADIENT_LIMIT, name)
        rounded = distances(reference(graph, feeds, params).gradients, expected.gradients)
        errors = distances(found.gradients, expected.gradients)
        worst.append(max((error - ROUNDINGS * rounded[name], name) for name, error in errors.items()))
        if worst[-1][0] <= GRADIENT_LIMIT:
            return
        assert hangs_on_rounding(graph, feeds, params, expected), f"the gradients differ: {worst}"
    pytest.fail(f"the gradients differ whatever the weights: {worst}")


@dataclass(frozen=True)
class TrainingStep:
    """A training step that hands out its gradients, compiled."""

    graph: Graph
    compilation: Compilation
    code: Code

    @classmethod
    def compile(cls, graph: Graph, target: Target, preferences: Preferences) -> TrainingStep:
        algorithms = ChooseAlgorithms(Algorithms(target, train=True), preferences)
        batch = graph.inputs[0].type.shape[0]
        given_out: Mapping[type, Pass] = {
            Differentiate: Differentiate(differentiated(graph)),
            DrawMasks: DropDropout(),
        }
        passes = [
            given_out.get(type(p), p)
            for p in training_passes(batch, SGD(lr=1.0), algorithms)
            if not isinstance(p, AppendUpdates)
        ]
        compilation = compile_graph(graph, passes, target)
        unit = Unit("step", target, (("run", compilation.program),))
        return cls(graph, compilation, Code.of(unit, compilation.program.workspace_bytes, ObjectCache(None)))

    def run(self, feeds: Mapping[str, Array], params: Mapping[str, Array]) -> Results:
        """On one thread, after seeing that two leave the same bits."""
        one, two = (self._run(feeds, params, threads) for threads in (1, 2))
        for field in ("outputs", "gradients", "statistics"):
            for name, array in getattr(one, field).items():
                assert_same_bits(getattr(two, field)[name], array)
        return one

    def _run(self, feeds: Mapping[str, Array], params: Mapping[str, Array], threads: int) -> Results:
        plan = self.compilation.plan
        block = pack_params(plan, params)
        entry = BoundEntry(Native(self.code, threads), "run", plan, feeds, block)
        entry()
        types = self.graph.values
        count = len(self.graph.outputs)
        outputs = zip((v.name for v in self.graph.outputs), entry.outputs[:count], strict=True)
        gradients = zip(differentiated(self.graph), entry.outputs[count:], strict=True)
        return Results(
            dict(outputs),
            {name: gradient.reshape(types[name].type.shape) for name, gradient in gradients},
            unpack_params(plan, block, running_statistics(self.graph)),
        )


def differentiated(graph: Graph) -> tuple[str, ...]:
    """What the loss is differentiated by: all params but running statistics, and the images."""
    statistics = running_statistics(graph)
    return (*(p.name for p in graph.params if p not in statistics), graph.inputs[0].name)


def reference(graph: Graph, feeds: Mapping[str, Array], params: Mapping[str, Array]) -> Results:
    """By the ops' own references, in the precision of what they are given."""
    names = differentiated(graph)
    full = gradient_graph(UseBatchStatistics()(graph), names)
    after = evaluate(full, feeds, params)
    count = len(graph.outputs)
    ends = zip(names, full.outputs[count:], strict=True)
    return Results(
        {v.name: after.outputs[v.name] for v in full.outputs[:count]},
        {name: after.outputs[end.name] for name, end in ends},
        {v.name: after.params[v.name] for v in running_statistics(graph)},
    )


def wide(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """In float64."""
    return {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in arrays.items()}


def distances(found: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, float]:
    """The largest error of each gradient, relative to its largest magnitude; infinite if one is NaN."""
    least = SMALL_GRADIENT * max(float(np.abs(g).max()) for g in expected.values())
    scales = {name: max(float(np.abs(g).max()), least, TINY) for name, g in expected.items()}
    errors = {name: float(np.abs(found[name] - g).max()) / scales[name] for name, g in expected.items()}
    return {name: np.inf if np.isnan(error) else error for name, error in errors.items()}


def hangs_on_rounding(
    graph: Graph, feeds: Mapping[str, Array], params: Mapping[str, Array], expected: Results
) -> bool:
    """Whether the reference itself moves as far when all it is given moves a little: then an element is at a
    kink of relu or of max pooling."""
    rng = np.random.default_rng(0)

    def moved(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {
            name: a + NOISE * np.abs(a).max() * rng.standard_normal(a.shape) if a.dtype.kind == "f" else a
            for name, a in wide(arrays).items()
        }

    others = (reference(graph, moved(feeds), moved(params)) for _ in range(DRAWS))
    return any(max(distances(o.gradients, expected.gradients).values()) > GRADIENT_LIMIT for o in others)
