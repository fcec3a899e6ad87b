"""From a source to its unit: the compilations of one network and the native functions made of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cnnc.backend.algorithms.book import Algorithms
from cnnc.backend.interface import Interface, Port, c_identifier, weight_table
from cnnc.backend.lower import lower_unpacking
from cnnc.backend.proven import Listener, ProvenKernels, heard_by_nobody
from cnnc.backend.target import Target
from cnnc.backend.unit import Packing, Unit
from cnnc.errors import CnncError
from cnnc.fit_memory import Limit, compile_within
from cnnc.ir.graph import Value
from cnnc.ir.types import Array
from cnnc.microbatch import microbatch
from cnnc.params import prepared_params
from cnnc.passes.append_updates import initial_states
from cnnc.passes.choose_algorithms import NO_PREFERENCES, ChooseAlgorithms, Preferences
from cnnc.passes.differentiate import Differentiate
from cnnc.passes.draw_masks import first_step
from cnnc.passes.set_batch import with_batch
from cnnc.pipeline import (
    Compilation,
    compile_preparation,
    inference_passes,
    prepared_passes,
    training_passes,
)
from cnnc.source import Source
from cnnc.version import VERSION


@dataclass(frozen=True)
class CompiledUnit:
    """A unit, the compilations its entries come from (the first decides how params lie), that of the
    preparation of its params, and its source."""

    source: Source
    batch: int
    train: bool
    compilations: tuple[Compilation, ...]
    preparation: Compilation
    unit: Unit

    @property
    def main(self) -> Compilation:
        return self.compilations[0]

    @property
    def workspace_bytes(self) -> int:
        """What the largest of the functions needs; they run one at a time."""
        return max(c.program.workspace_bytes for c in (*self.compilations, self.preparation))

    def interface(self, has_builtin_params: bool) -> Interface:
        """What a C caller must know."""
        plan = self.main.plan
        return Interface(
            name=self.unit.name,
            inputs=tuple(self._input(v) for v in plan.graph.inputs),
            outputs=tuple(self._port(n, v) for n, v in self.outputs),
            weights=weight_table((p.name, p.type.shape) for p in self.source.graph.params),
            param_bytes=plan.param_bytes,
            workspace_bytes=self.workspace_bytes,
            train=self.train,
            target=self.unit.target.name,
            batch=self.batch,
            version=VERSION,
            has_builtin_params=has_builtin_params,
            classes=self.source.classes if self.train else None,
            learning_rate=self.source.optimizer.lr if self.train else 0.01,
            schedule=self.source.optimizer.schedule if self.train else "constant",
        )

    @property
    def microbatch(self) -> int:
        """The images that the main plan is for; a batch of more takes turns."""
        return self.main.program.microbatch or self.batch

    def _port(self, name: str, value: Value) -> Port:
        """A value of the plan as one of the whole batch."""
        return Port(name, value.type.dtype, with_batch(value.type, self.batch).shape)

    def _input(self, value: Value) -> Port:
        port = self._port(value.name, value)
        spec = next((s for s in self.source.inputs if s.name == value.name), None)
        return port if spec is None else replace(port, scale=spec.scale, shift=spec.shift)

    @property
    def outputs(self) -> list[tuple[str, Value]]:
        """The plan's outputs under the names the graph gave them."""
        names = [v.name for v in self.main.stages[0].graph.outputs]
        return list(zip(names, self.main.plan.graph.outputs, strict=True))

    def given(self, weights: Mapping[str, Array]) -> list[Array]:
        """The weights in the order in which NAME_pack reads them."""
        return [weights[p.name] for p in self.source.graph.params]

    def prepared(self, weights: Mapping[str, Array]) -> Array:
        """The first param block, by references in NumPy; `Native.packed` is faster where it can run."""
        return prepared_params(self.main.plan, self.preparation.plan, self.given(weights))


def inference_unit(
    source: Source,
    batch: int,
    target: Target,
    preferences: Preferences = NO_PREFERENCES,
    strict: bool = False,
    max_memory: int | None = None,
    listener: Listener = heard_by_nobody,
) -> CompiledUnit:
    """`NAME_run`: the forward graph, for up to `batch` images.

    With `strict` nothing is summed in another order than by the definition. `max_memory` is the most bytes of
    workspace; raises CnncError where they do not suffice. `listener` hears of each kernel at once, unless
    memory is limited, for then some are thrown away.
    """
    _check_batch(batch)
    limits = _Limits(source, max_memory)
    target = limits.suited(target)
    algorithms = ChooseAlgorithms(Algorithms(target, strict), preferences)
    images = microbatch(source.graph, batch, target, algorithms)
    passes = prepared_passes(images, algorithms)
    proven = limits.proven(listener)
    limit = limits.of("inference")
    compilation = compile_within(limit, source.graph, passes, target, batch=images, proven=proven)
    compilation = replace(compilation, program=replace(compilation.program, batch=batch))
    return _compiled(source, batch, False, target, limits, proven, ("run", compilation))


def training_unit(
    source: Source,
    batch: int,
    target: Target,
    preferences: Preferences = NO_PREFERENCES,
    strict: bool = False,
    max_memory: int | None = None,
    listener: Listener = heard_by_nobody,
) -> CompiledUnit:
    """`NAME_step`, one training step, and `NAME_evaluate`, the loss alone, on the same params. Within
    `max_memory` bytes of workspace a step computes activations again instead of keeping them. For
    `listener` see `inference_unit`."""
    _check_batch(batch)
    limits = _Limits(source, max_memory)
    target = limits.suited(target)
    graph = source.loss_graph()
    algorithms = ChooseAlgorithms(Algorithms(target, strict, train=True), preferences)
    passes = training_passes(batch, source.optimizer, algorithms)
    proven = limits.proven(listener)
    step = compile_within(limits.of("a training step"), graph, passes, target, proven=proven)
    limit, passes = limits.of("evaluation"), inference_passes(batch, algorithms)
    evaluate = compile_within(limit, graph, passes, target, shared=step.plan, proven=proven)
    return _compiled(source, batch, True, target, limits, proven, ("step", step), ("evaluate", evaluate))


@dataclass(frozen=True)
class _Limits:
    """The memory that each function of a source may use."""

    source: Source
    max_memory: int | None

    def __post_init__(self) -> None:
        given = self.max_memory
        if given is not None and (not isinstance(given, int | np.integer) or given < 0):
            raise CnncError(f"max_memory must be a whole number of bytes, not {given!r}")

    def suited(self, target: Target) -> Target:
        """The target for code within the limit: what suits few threads works on larger blocks, in more
        scratch memory."""
        return target if self.max_memory is None else target.suited_to()

    def proven(self, listener: Listener) -> ProvenKernels:
        """The kernels of the source's functions; with a limit the listener hears of none."""
        return ProvenKernels(listener if self.max_memory is None else heard_by_nobody)

    def of(self, what: str) -> Limit | None:
        if self.max_memory is None:
            return None
        return Limit(self.max_memory, what, self.source.name, self.source.location)


def _compiled(
    source: Source,
    batch: int,
    train: bool,
    target: Target,
    limits: _Limits,
    proven: ProvenKernels,
    *entries: tuple[str, Compilation],
) -> CompiledUnit:
    main = entries[0][1]
    weights = [p.name for p in source.graph.params]
    states = _first_states(main, source) if train else {}
    preparation = compile_preparation(main, weights, states, target, proven)
    limit = limits.of("preparing the parameters")
    if limit is not None:
        limit.check(preparation)
    offsets = itertools.accumulate((v.type.nbytes for v in preparation.plan.graph.inputs), initial=0)
    planned = {p.name: p for p in main.plan.graph.params}
    unit = Unit(
        c_identifier(source.name),
        target,
        tuple((suffix, compilation.program) for suffix, compilation in entries),
        Packing(preparation.program, tuple(offsets)[:-1]),
        lower_unpacking(main.plan, [planned[w] for w in weights], target, proven) if train else (),
    )
    return CompiledUnit(source, batch, train, tuple(c for _, c in entries), preparation, unit)


def _first_states(step: Compilation, source: Source) -> Mapping[str, float]:
    """The number that each param which is no weight begins with, in all its elements: the optimizer's
    states and the counter of steps."""
    pairs = itertools.pairwise(step.stages)
    given = next(before.graph for before, after in pairs if after.name == Differentiate.name)
    states = initial_states(given.trained, source.optimizer)
    return {**{name: float(array.flat[0]) for name, array in states.items()}, **first_step(source.graph)}


def _check_batch(batch: int) -> None:
    if not isinstance(batch, int | np.integer) or batch < 1:
        raise CnncError(f"batch must be a positive whole number, not {batch!r}")
