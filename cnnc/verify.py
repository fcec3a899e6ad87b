"""Checks that compiled code computes what the NumPy references say: the work behind `cnnc verify`.

Three comparisons, each with its limit, and the counts of what was proven of the kernels:
compiled outputs with float64 references; float64 reference gradients with central differences along
random directions; compiled float32 gradients with the float64 ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cnnc.backend.cache import ObjectCache, default_directory
from cnnc.backend.lower import Call
from cnnc.backend.unit import Unit
from cnnc.bound import BoundEntry, random_feeds
from cnnc.ir.evaluate import evaluate
from cnnc.ir.graph import Graph
from cnnc.ir.types import Array
from cnnc.native import Code, Native
from cnnc.params import pack_params
from cnnc.passes.append_updates import AppendUpdates
from cnnc.passes.differentiate import gradient_graph
from cnnc.passes.draw_masks import DrawMasks
from cnnc.passes.drop_dropout import DropDropout
from cnnc.passes.set_batch import SetBatch
from cnnc.passes.use_batch_statistics import UseBatchStatistics, running_statistics
from cnnc.pipeline import compile_graph, training_passes
from cnnc.source import Source, Weights
from cnnc.units import CompiledUnit

OUTPUT_LIMIT, DIFFERENCE_LIMIT, GRADIENT_LIMIT = 1e-4, 1e-6, 1e-3
DIRECTIONS = 3
STEPS = (1e-4, 1e-5, 1e-6)
"""Of central differences: of a right gradient one of them is near enough, of a wrong one none."""

WEIGHT_NOISE = 0.05
"""Added to the weights, since biases that begin at zero would hide a mistake."""

SMALL_GRADIENT = 1e-3
"""Gradients below this share of the largest one are compared with that share: they may be all rounding."""


TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class Check:
    """A comparison: the largest error found, and the most it may be. NaN does not pass."""

    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.error <= self.limit


@dataclass(frozen=True)
class ProofCount:
    """What was proven of the distinct kernels of a unit."""

    name: str
    kernels: int
    accesses: int
    conflicts: int


@dataclass(frozen=True)
class Verification:
    checks: tuple[Check, ...]
    proofs: tuple[ProofCount, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


Compile = Callable[[Source, int, bool], CompiledUnit]
"""Compiles a source for so many images, for training or not."""


def verify_source(source: Source, batch: int, seed: int, compiled: Compile, weights: Weights) -> Verification:
    """All checks of a network; gradients where it declares a loss. Raises CnncError where it cannot be
    compiled or run here."""
    rng = np.random.default_rng(seed)
    params = _disturbed(source, weights, rng)
    inference = compiled(source, batch, False)
    checks = list(_output_checks(inference, params, rng))
    proofs = [_proofs("inference", inference.unit.calls)]
    if source.has_loss:
        loss = UseBatchStatistics()(SetBatch(batch)(source.loss_graph()))
        training = compiled(source, batch, True)
        checks += _gradient_checks(training, loss, params, rng)
        proofs.append(_proofs("training", training.unit.calls))
    return Verification(tuple(checks), tuple(proofs))


def _disturbed(source: Source, weights: Weights, rng: np.random.Generator) -> dict[str, Array]:
    """The weights with some noise, running statistics multiplied by it: a variance must stay positive."""
    statistics = {v.name for v in running_statistics(source.graph)}
    return {
        name: w * np.exp(noise) if name in statistics else w + noise
        for name, w in source.weights(weights).items()
        for noise in (WEIGHT_NOISE * rng.standard_normal(w.shape, np.float32),)
    }


def _output_checks(
    compiled: CompiledUnit, params: Mapping[str, Array], rng: np.random.Generator
) -> Iterable[Check]:
    graph = SetBatch(compiled.batch)(compiled.source.graph)
    feeds = random_feeds(graph.inputs, rng, None)
    expected = evaluate(graph, _doubled(feeds), _doubled(params)).outputs
    plan = compiled.main.plan
    native = _native(compiled.unit, compiled.workspace_bytes)
    block = native.packed(compiled.given(params), plan.param_bytes)
    entry = BoundEntry(native, "run", plan, feeds, block, compiled.batch)
    entry()
    for value, found in zip(graph.outputs, entry.outputs, strict=True):
        yield Check(f"output {value.name}", _relative(found, expected[value.name]), OUTPUT_LIMIT)


def _gradient_checks(
    training: CompiledUnit, loss: Graph, params: Mapping[str, Array], rng: np.random.Generator
) -> Iterable[Check]:
    feeds = random_feeds(loss.inputs, rng, training.source.classes)
    names = [p.name for p in loss.trained]
    graph = gradient_graph(loss, names)
    results = evaluate(graph, _doubled(feeds), _doubled(params)).outputs
    ends = graph.outputs[-len(names) :]
    gradients = {name: results[end.name] for name, end in zip(names, ends, strict=True)}
    slopes = [_difference(loss, feeds, params, gradients, rng) for _ in range(DIRECTIONS)]
    yield Check("gradients: central differences", float(np.max(slopes)), DIFFERENCE_LIMIT)
    found = _compiled_gradients(training, feeds, params)
    largest = max(float(np.max(np.abs(g))) for g in gradients.values())
    errors = {n: _relative(found[n], gradients[n], SMALL_GRADIENT * largest) for n in names}
    worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
    yield Check(f"gradients: compiled ({worst})", errors[worst], GRADIENT_LIMIT)


def _compiled_gradients(
    training: CompiledUnit, feeds: Mapping[str, Array], params: Mapping[str, Array]
) -> dict[str, Array]:
    """Gradients by the code of a training step that hands them out instead of using them up, and drops
    nothing, for what is dropped has no reference."""
    source, target = training.source, training.unit.target
    passes = [
        DropDropout() if isinstance(p, DrawMasks) else p
        for p in training_passes(training.batch, source.optimizer, training.main.algorithms)
        if not isinstance(p, AppendUpdates)
    ]
    compilation = compile_graph(source.loss_graph(), passes, target)
    unit = Unit("verify", target, (("gradients", compilation.program),))
    native = _native(unit, compilation.program.workspace_bytes)
    block = pack_params(compilation.plan, params)
    entry = BoundEntry(native, "gradients", compilation.plan, feeds, block)
    entry()
    shapes = {p.name: p.type.shape for p in source.graph.params}
    trained = compilation.plan.graph.trained
    found = zip(trained, entry.outputs[-len(trained) :], strict=True)
    return {param.name: gradient.reshape(shapes[param.name]) for param, gradient in found}


def _difference(
    loss: Graph,
    feeds: Mapping[str, Array],
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    rng: np.random.Generator,
) -> float:
    """The relative error of the slope of the loss along a random direction, at the best of the steps."""
    direction = {name: rng.standard_normal(g.shape) for name, g in gradients.items()}
    length = math.sqrt(sum(float(np.sum(d * d)) for d in direction.values()))
    slope = sum(float(np.sum(gradients[n] * d)) for n, d in direction.items()) / length
    inputs, weights = _doubled(feeds), _doubled(params)

    def loss_at(step: float) -> float:
        moved = {name: weights[name] + step / length * d for name, d in direction.items()}
        return float(evaluate(loss, inputs, {**weights, **moved}).outputs[loss.outputs[0].name])

    slopes = [(loss_at(step) - loss_at(-step)) / (2 * step) for step in STEPS]
    nearest = min(abs(measured - slope) for measured in slopes)
    return nearest / max(abs(slope), TINY)


def _doubled(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Floats in float64, in which references then compute."""
    return {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in arrays.items()}


def _relative(found: Array, expected: Array, least: float = 0.0) -> float:
    """The largest difference, relative to the largest magnitude expected or to `least`."""
    scale = max(float(np.max(np.abs(expected))), least)
    return float(np.max(np.abs(found - expected))) / (scale or 1.0)


def _proofs(name: str, calls: Iterable[Call]) -> ProofCount:
    proofs = list({call.kernel: call.proof for call in calls}.values())
    return ProofCount(name, len(proofs), sum(p.accesses for p in proofs), sum(p.conflicts for p in proofs))


def _native(unit: Unit, workspace_bytes: int) -> Native:
    return Native(Code.of(unit, workspace_bytes, ObjectCache(default_directory())), 1)
