"""Plans memory: a place for every value of a graph, as few bytes of arena as possible.

The last pass before kernels are generated. Four steps, each a file: what updates, views and joined
channels decide (settle_results, with channel_parts), the order of the nodes (order_nodes), who takes
over whose memory (storages), and the offsets (pack_arena). The result is checked by
cnnc/ir/verify_plan.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cnnc.errors import CnncError
from cnnc.ir.graph import Graph, Value
from cnnc.ir.layout import CHANNELS_LAST, Layout
from cnnc.ir.plan import Placement, Plan, Space, aligned, part_of
from cnnc.passes.channel_parts import Part, TakesParts
from cnnc.passes.order_nodes import node_orders
from cnnc.passes.pack_arena import Interval, pack, packed_bytes
from cnnc.passes.settle_results import Settled, settle_results
from cnnc.passes.storages import Storages, assign_storages, live_bytes_bound


def plan_buffers(
    graph: Graph,
    layouts: Mapping[str, Layout],
    params: Mapping[str, Placement] | None = None,
    takes_parts: TakesParts = lambda node, value: True,
) -> Plan:
    """A plan of `graph`, whose values have the given layouts.

    `params` fixes where the params lie, so that a graph that evaluates can share the block of the
    graph that trains: pass the training plan's placements. Nodes may be reordered, and copies
    (`relayout`) added for updates that cannot be written in place and for outputs that are inputs
    or params; the outputs keep their positions, but such an output gets a new name. Values may lie
    inside the rows of others where `takes_parts` allows it. Raises CnncError if `params` lacks a param.

    %1 = conv2d(%x, @w)   %1: arena 0                     (all three in one plan)
    %2 = relu(%1)         %2: arena 0, over %1
    update @w = %3        %3: where @w lies
    """
    settled = settle_results(graph, layouts, takes_parts)
    block = _param_block(graph.params, layouts) if params is None else _fixed(graph.params, params)
    ordered = [(order, assign_storages(order)) for order in node_orders(settled)]
    ordered.sort(key=lambda pair: live_bytes_bound(pair[1]))
    plan = _planned(*ordered[0], block)
    for order, storages in ordered[1:]:
        if live_bytes_bound(storages) < plan.arena_bytes:
            plan = min(plan, _planned(order, storages, block), key=lambda plan: plan.arena_bytes)
    return plan


def _planned(settled: Settled, storages: Storages, block: Mapping[str, Placement]) -> Plan:
    """The plan for the nodes in the order in which they stand, whose values have these storages."""
    bound = live_bytes_bound(storages)
    intervals = [Interval(s.first, s.last, s.nbytes) for s in storages.arena]
    offsets = pack(intervals, bound)
    starts = dict(zip(storages.arena, offsets, strict=True))
    placements: dict[str, Placement] = {}
    for value, storage in storages.of.items():
        nbytes = settled.layouts[value.name].nbytes(value.type)
        if storage.space is Space.PARAM:
            placements[value.name] = replace(block[storage.members[0].name], nbytes=nbytes)
        else:
            place = Placement(storage.space, starts.get(storage, 0), storage.nbytes, storage.index)
            placements[value.name] = _inside(place, value, storages.parts.get(value), nbytes)
    return Plan(
        graph=settled.graph,
        layouts=settled.layouts,
        placements=placements,
        in_place=storages.in_place,
        arena_bytes=packed_bytes(intervals, offsets),
        param_bytes=max((aligned(p.end) for p in block.values()), default=0),
        live_bytes_bound=bound,
    )


def _inside(place: Placement, value: Value, part: Part | None, nbytes: int) -> Placement:
    """Where a value lies in a storage at that place: in all of it, or in some channels."""
    if part is None:
        return replace(place, nbytes=nbytes)
    return part_of(place, CHANNELS_LAST, part.whole.type, part.channel, value.type.shape[1])


def _param_block(params: tuple[Value, ...], layouts: Mapping[str, Layout]) -> Mapping[str, Placement]:
    """The params one behind the other."""
    block: dict[str, Placement] = {}
    end = 0
    for param in params:
        block[param.name] = Placement(Space.PARAM, end, layouts[param.name].nbytes(param.type))
        end = aligned(block[param.name].end)
    return block


def _fixed(params: tuple[Value, ...], given: Mapping[str, Placement]) -> Mapping[str, Placement]:
    """The given placements that are in the param block; all of them count for its size."""
    block = {name: place for name, place in given.items() if place.space is Space.PARAM}
    missing = [p.name for p in params if p.name not in block]
    if missing:
        raise CnncError(f"the fixed param block has no place for {missing[0]!r}")
    return block
