"""Lowers a plan to a program: one kernel call per node that moves or computes data.

Each node becomes a Site, each site a Kernel (proven.py), checked and proven. Kernels of equal text are
one. The program is what entry.py writes the native function from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from cnnc.backend.images import image_values
from cnnc.backend.kernel.ir import Kernel, aligned_scratch
from cnnc.backend.kernels.registry import Proof
from cnnc.backend.kernels.site import Site, Tensor
from cnnc.backend.proven import ProvenKernels
from cnnc.backend.target import Target
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Node, Value
from cnnc.ir.layout import row_major
from cnnc.ir.plan import ALIGNMENT, Placement, Plan, Space, is_alias
from cnnc.ir.types import TensorType
from cnnc.ops.fused import Fused
from cnnc.ops.shape import Relayout

FLOPS_PER_ELEMENT = 4
"""What reading or writing one element counts against a multiply-accumulate's two, to weigh a fork."""

ALL_CACHES = 64
"""Times the second-level cache: what all caches hold at most. Of a larger arena a result finds its memory in
none of them."""

CALLERS = frozenset({Space.INPUT, Space.OUTPUT})
"""Memory that holds just the images of a call."""


@dataclass(frozen=True)
class Call:
    """One kernel run on buffers at these places. `node` is the plan's node, None for packing."""

    kernel: Kernel
    proof: Proof
    arguments: tuple[Placement, ...]
    flops: int
    node: Node | None = None


@dataclass(frozen=True)
class Program:
    """The calls of a plan in order. `batch` is the most images of a run where there may be fewer, 0 where
    there are always as many as the plan has. The plan is for `microbatch` of them, more take turns."""

    plan: Plan
    target: Target
    calls: tuple[Call, ...]
    batch: int = 0
    microbatch: int = 0

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        """Each kernel once, in the order of first use."""
        return unique_kernels(self.calls)

    @cached_property
    def scratch_bytes(self) -> int:
        """Scratch memory of each thread: what the most demanding of the kernels needs."""
        return max((kernel.scratch_bytes for kernel in self.kernels), default=0)

    @property
    def scratch_offset(self) -> int:
        """Where in the workspace the calling thread's scratch memory begins: behind the arena."""
        return aligned_scratch(self.plan.arena_bytes)

    @property
    def workspace_bytes(self) -> int:
        """The arena, and the calling thread's scratch memory."""
        return self.scratch_offset + self.scratch_bytes if self.scratch_bytes else self.plan.arena_bytes


def unique_kernels(calls: Iterable[Call]) -> tuple[Kernel, ...]:
    return tuple(dict.fromkeys(call.kernel for call in calls))


def lower(plan: Plan, target: Target, batch: int = 0, proven: ProvenKernels | None = None) -> Program:
    """The program of a plan; with a `batch`, that of its inputs, it can be run for fewer images as well.
    Kernels that were `proven` for another program are shared with it.

    Raises UnsupportedError, at the node, for what no kernel computes, or with a batch for what mixes images.
    """
    proven = proven or ProvenKernels()
    images = image_values(plan.graph, batch) if batch > 1 else frozenset()
    calls = []
    for node in plan.graph.nodes:
        if is_alias(plan, node):
            continue
        node = _with_distinct_operands(node)
        site = site_of_node(plan, node, target)
        own = [r for i, r in enumerate(node.results) if i not in site.in_place]
        arguments = (*node.operands, *own)
        places = tuple(plan.placement(v) for v in arguments)
        if not images.isdisjoint(node.operands):
            exact = any(place.space in CALLERS for place in places)
            site = replace(site, images=batch, exact_images=exact)
        holding = tuple(v in images for v in arguments)
        kernel, proof = proven.of(site, holding, node.loc)
        calls.append(Call(kernel, proof, places, _flops(node), node))
    return Program(plan, target, tuple(calls), batch, microbatch=batch)


def lower_unpacking(
    plan: Plan, weights: Iterable[Value], target: Target, proven: ProvenKernels | None = None
) -> tuple[Call, ...]:
    """Calls that copy weights out of the param block, row-major and one behind the other: what the calls
    know as output 0."""
    proven = proven or ProvenKernels()
    calls, offset = [], 0
    for value in weights:
        inside, outside = (
            Tensor(value.type, plan.layout(value)),
            Tensor(value.type, row_major(value.type.rank)),
        )
        op = Relayout(inside.layout.tag, outside.layout.tag)
        kernel, proof = proven.of(Site(op, (inside,), (outside,), target))
        place = Placement(Space.OUTPUT, offset, value.type.nbytes)
        calls.append(Call(kernel, proof, (plan.placement(value), place), 0))
        offset += value.type.nbytes
    return tuple(calls)


def site_of_node(plan: Plan, node: Node, target: Target) -> Site:
    """The site at which a node of the plan, its operands distinct, is computed."""
    names = [o.name for o in node.operands]
    in_place = {
        i: names.index(plan.in_place[r.name])
        for i, r in enumerate(node.results)
        if plan.in_place.get(r.name) in names
    }

    def tensors(values: Iterable[Value]) -> tuple[Tensor, ...]:
        return tuple(Tensor(v.type, plan.layout(v), _pitch(plan.placement(v), v.type)) for v in values)

    streamed = frozenset(_streamed(plan, node, target, in_place))
    return Site(node.op, tensors(node.operands), tensors(node.results), target, in_place, streamed=streamed)


def _streamed(plan: Plan, node: Node, target: Target, in_place: Mapping[int, int]) -> Iterator[int]:
    """The results that go past the caches: whatever reads them would not find them there."""
    if plan.arena_bytes <= ALL_CACHES * target.l2_bytes:
        return
    for number, result in enumerate(node.results):
        place = plan.placement(result)
        is_aligned = place.offset % ALIGNMENT == place.pitch % ALIGNMENT == 0
        is_far = place.space is Space.ARENA and place.nbytes > target.kept_results * target.l2_bytes
        if number not in in_place and is_aligned and is_far:
            yield number


def _pitch(place: Placement, type: TensorType) -> int:
    """Elements from row to row; 0 for a single row, which is dense whatever it lies in."""
    return place.pitch // type.numpy.itemsize if place.rows > 1 else 0


def _with_distinct_operands(node: Node) -> Node:
    """The node with each operand once: buffers of a kernel must not overlap, and one may be written."""
    if len(set(node.operands)) == len(node.operands):
        return node
    body = GraphBuilder("fused")
    local: Mapping[Value, Value] = {o: body.input(body.fresh(), o.type) for o in dict.fromkeys(node.operands)}
    results = body.emit_all(node.op, *(local[o] for o in node.operands))
    return replace(node, op=Fused(body.build(results)), operands=tuple(local))


def _flops(node: Node) -> int:
    elements = sum(v.type.size for v in (*node.operands, *node.results))
    return 2 * node.macs + FLOPS_PER_ELEMENT * elements
