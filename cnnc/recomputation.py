"""What could be computed again, so that less is alive where a plan needs the most memory.

cnnc/fit_memory.py asks for offers, tries the best ones and plans again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Trait
from cnnc.passes.recompute_activations import forward_nodes, recomputable
from cnnc.peak import Held, Profile

ELEMENT_COST = 4
"""What reading or writing one element counts against a multiply-accumulate."""

SMALL = 16
"""A value so many times smaller than what is computed from it is kept rather than computed again."""


@dataclass(frozen=True)
class Offer:
    """Values to compute again, all or none; the bytes that fewer are alive then, and the work it takes."""

    values: frozenset[str]
    saved: int
    cost: int


@dataclass(frozen=True)
class Situation:
    """The graph before anything is computed again, the `chosen` values that already are, and the plan's
    profile with these. `depth` is the most contractions that may be computed one from the other again."""

    graph: Graph
    chosen: frozenset[str]
    profile: Profile
    depth: int

    def offers(self) -> list[Offer]:
        """What would lower the peak, the least work per byte first."""
        found = (self._offer(held) for held in self._idle())
        return sorted((o for o in found if o is not None), key=lambda o: o.cost / o.saved)

    @cached_property
    def _held(self) -> tuple[Held, ...]:
        return self.profile.held(self.profile.peak)

    @cached_property
    def _possible(self) -> frozenset[Value]:
        return frozenset(recomputable(self.graph))

    def _idle(self) -> Iterator[Held]:
        """Memory of which the forward part is done with all values at the peak, and the backward part has
        not begun with any."""
        plan, peak = self.profile.plan, self.profile.peak
        forward = forward_nodes(plan.graph)
        for held in self._held:
            readers = {i for v in held.values for i in plan.graph.users[v]}
            starts = (plan.graph.position[v] for v in held.values)
            waits = all(i < peak if i in forward else i > peak for i in readers)
            is_kept = any(v in plan.graph.results for v in held.values)
            is_there = all(start < peak for start in starts)
            if waits and is_there and not is_kept and self._possible.issuperset(held.values):
                yield held

    def _offer(self, held: Held) -> Offer | None:
        """To compute what lies there again, with all that it takes."""
        kept = {v.name for other in self._held if other is not held for v in other.values}
        new = set(held.values)
        pending, extended = list(held.values), set[Value]()
        while pending:
            for operand in self.graph.producer[pending.pop()].operands:
                if operand not in self.graph.producer or operand in new or operand.name in self.chosen | kept:
                    continue
                if operand in self._possible and operand.type.nbytes * SMALL > held.nbytes:
                    new.add(operand)
                    pending.append(operand)
                else:
                    extended.add(operand)
        new |= self._made_of(new)
        saved = held.nbytes - sum(v.type.nbytes for v in extended)
        names = frozenset(v.name for v in new)
        if saved <= 0 or self._longest_chain(self.chosen | names) > self.depth:
            return None
        return Offer(names, saved, sum(work(self.graph.producer[v]) for v in new))

    def _made_of(self, values: set[Value]) -> set[Value]:
        """What kernels make of these values as they read them: it is in no memory, but who reads it reads
        them."""
        found: set[Value] = set()
        for node in self.graph.nodes:
            result = node.results[0]
            is_made = node.op.has(Trait.ELEMENTWISE) and result.name not in self.profile.plan.graph.values
            if is_made and result in self._possible and not found.union(values).isdisjoint(node.operands):
                found.add(result)
        return found - values

    def _longest_chain(self, names: frozenset[str]) -> int:
        """The most contractions among these values that are computed one from the other."""
        depths: dict[Value, int] = {}
        for node in self.graph.nodes:
            if node.results[0].name in names:
                behind = max((depths.get(o, 0) for o in node.operands), default=0)
                depths[node.results[0]] = behind + node.op.has(Trait.CONTRACTION)
        return max(depths.values(), default=0)


def work(node: Node) -> int:
    """What computing a node takes, to compare."""
    elements = sum(v.type.size for v in (*node.operands, *node.results))
    return 2 * node.macs + ELEMENT_COST * elements
