"""How long each kernel of a network takes: the measurement behind `cnnc bench --layers` and `cnnc tune`.

Every call of the program becomes a function of its own; a round runs them in order, each timed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cnnc.backend.cache import ObjectCache, default_directory
from cnnc.bound import BoundEntry, random_entry
from cnnc.explain import Decision, decisions
from cnnc.ir.graph import Node
from cnnc.ir.types import Array
from cnnc.native import Code, Native
from cnnc.units import CompiledUnit


@dataclass(frozen=True)
class CallTime:
    """One kernel call: the layer, what it computes (`op`, that of the layer graph), by which algorithm, and
    in seconds the best and the median time. `macs` are those of the direct method, `nbytes` what the
    operands and results hold."""

    layer: str
    op: str
    algorithm: str
    shape: tuple[int, ...]
    best: float
    median: float
    macs: int
    nbytes: int

    @property
    def flops_per_second(self) -> float:
        """By the multiply-accumulates of the direct method."""
        return 2 * self.macs / self.best


def layer_times(compiled: CompiledUnit, threads: int, seconds: float) -> tuple[CallTime, ...]:
    """Time every call of the main program on random inputs and the first weights, for about that long."""
    known = decisions(compiled.main)
    timed = node_times(compiled, threads, seconds)
    return tuple(_timed(compiled, node, known, times) for node, times in timed)


def node_times(compiled: CompiledUnit, threads: int, seconds: float) -> list[tuple[Node, Array]]:
    """The planned nodes that run as kernels, in order, each with the seconds of every round."""
    program = compiled.main.program
    entries = tuple((f"call{i}", replace(program, calls=(call,))) for i, call in enumerate(program.calls))
    unit = replace(compiled.unit, entries=entries, unpack=())
    code = Code.of(unit, compiled.workspace_bytes, ObjectCache(default_directory()))
    first = random_entry(compiled, Native(code, threads), entries[0][0])
    columns = np.array(_rounds([first.of(suffix) for suffix, _ in entries], seconds)).T
    nodes = [call.node for call in program.calls if call.node is not None]
    return list(zip(nodes, columns, strict=True))


def _rounds(functions: Sequence[BoundEntry], seconds: float) -> list[list[float]]:
    """Seconds of every function in every round; the first round is not counted."""
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    warm = False
    while not rounds or time.perf_counter() < end:
        times = []
        for function in functions:
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        if warm:
            rounds.append(times)
        warm = True
    return rounds


def _timed(compiled: CompiledUnit, node: Node, known: Mapping[str, Decision], seconds: Array) -> CallTime:
    """The node is for a microbatch; its times are those of a whole batch, in turns."""
    turns = -(-compiled.batch // compiled.microbatch)
    decision = known.get(node.results[0].name)
    return CallTime(
        node.layer,
        decision.op if decision else node.op.name,
        decision.algorithm if decision else "",
        node.results[0].type.shape,
        float(seconds.min()),
        float(np.median(seconds)),
        node.macs * compiled.batch // compiled.microbatch,
        sum(v.type.nbytes for v in (*node.operands, *node.results)) * turns,
    )
