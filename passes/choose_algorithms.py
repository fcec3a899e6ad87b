"""Chooses how each contraction is computed, and rewrites it if another op does it faster.

Stands behind autodiff and the lowering of windows and before fusion. What there is to choose from, and
what it costs, reaches the pass as data: a function from a node's op and types to candidates (the
backend's algorithms.py). A forced algorithm comes first, then one measured before (a tuning file), then
the cheapest by the cost model; the choice depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Protocol

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType
from cnnc.passes.rewrite import Rewriter

Emit = Callable[..., Value]
"""`emit(op, *operands)`: adds a node before the one being rewritten."""

Rewrite = Callable[[Emit, tuple[Value, ...]], tuple[Op, tuple[Value, ...]]]
"""From a node's operands to the op and operands that take its place."""


@dataclass(frozen=True)
class Candidate:
    """One algorithm for a node: cycles it is expected to take on one core, and the rewriting it needs, None
    where the node stays as it is."""

    algorithm: str
    cycles: float
    rewrite: Rewrite | None = None


class CandidateBook(Protocol):
    """The candidates for an op of these operand types and this result type; empty if there is no choice. A
    `strict` book has none that sums in another order."""

    @property
    def strict(self) -> bool: ...

    def __call__(
        self, op: Op, operands: tuple[TensorType, ...], result: TensorType, /
    ) -> tuple[Candidate, ...]: ...


Candidates = Callable[[Op, tuple[TensorType, ...], TensorType], tuple[Candidate, ...]]
"""What a book answers, also where its answers are remembered."""


@dataclass(frozen=True)
class Preferences:
    """`forced` is an algorithm's name or the beginning of one, taken wherever it applies; `tuned` maps a
    node's `key` to the algorithm that was measured to be the fastest."""

    forced: str | None = None
    tuned: Mapping[str, str] = field(default_factory=dict)


NO_PREFERENCES = Preferences()


@dataclass(frozen=True)
class Choice:
    """What was chosen for a node, and why: `reason` is forced, measured, predicted or only."""

    node: Node
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    reason: str


def choice_key(op: Op, operands: tuple[TensorType, ...]) -> str:
    """What a tuning file knows a node by: everything its speed depends on."""
    attributes = ", ".join(f"{name}={value}" for name, value in op.attributes.items())
    return f"{op.name}({', '.join(map(str, operands))}) {{{attributes}}}"


def choose(node: Node, book: Candidates, preferences: Preferences) -> Choice | None:
    """The choice for a node; None where the book knows of no algorithms."""
    if len(node.results) != 1:
        return None
    types = tuple(o.type for o in node.operands)
    candidates = book(node.op, types, node.result.type)
    if not candidates:
        return None
    if len(candidates) == 1:
        return Choice(node, candidates, candidates[0], "only")
    wanted = preferences.tuned.get(choice_key(node.op, types))
    for name, reason in ((preferences.forced, "forced"), (wanted, "measured")):
        found = next((c for c in candidates if name and c.algorithm.startswith(name)), None)
        if found is not None:
            return Choice(node, candidates, found, reason)
    return Choice(node, candidates, min(candidates, key=lambda c: c.cycles), "predicted")


@dataclass(frozen=True)
class ChooseAlgorithms:
    """Every contraction becomes the op of the algorithm chosen for it.

    %1 = conv2d(%x, @w) {pad=(1,1,1,1)}
      ->  %1.u = winograd_weights(@w) {tile=(4,4)};  %1 = winograd_conv2d(%x, %1.u) {tile=(4,4), ...}
    """

    name: ClassVar[str] = "choose_algorithms"
    book: CandidateBook
    preferences: Preferences = NO_PREFERENCES

    def choice(self, node: Node) -> Choice | None:
        """The choice for a node; None where there are no algorithms to choose from."""
        return choose(node, self.book, self.preferences)

    def __call__(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        rewriter.declare()
        book = cache(self.book)  # equal nodes cost the same
        for node in graph.nodes:
            choice = choose(node, book, self.preferences)
            if choice is None or choice.chosen.rewrite is None:
                rewriter.copy(node)
            else:
                _rewrite(rewriter, node, choice.chosen.rewrite)
        return rewriter.finish()


def _rewrite(rewriter: Rewriter, node: Node, rewrite: Rewrite) -> None:
    def emit(op: Op, *operands: Value) -> Value:
        return rewriter.emit(node, op, *operands, stem=f"{node.result.name}.{op.name}")

    op, operands = rewrite(emit, tuple(rewriter.new[o] for o in node.operands))
    rewriter.copy(node, op, operands)
