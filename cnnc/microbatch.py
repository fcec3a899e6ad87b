"""How many images of a batch inference computes at a time: all, or as many as the caches hold.

Read by units.py, before it compiles; backend/entry.py writes the loop. What is computed for an image does
not depend on others, so a batch may as well be computed in turns. Then the maps between layers stay in the
caches, and the arena is smaller; but every turn reads the weights again. Training needs all images at once.
"""

from __future__ import annotations

from cnnc.backend.target import Target
from cnnc.ir.graph import Graph
from cnnc.ir.plan import Plan, Space, is_alias
from cnnc.passes.choose_algorithms import ChooseAlgorithms
from cnnc.passes.runner import run_passes
from cnnc.pipeline import plan_graph, prepared_passes

CACHES = 16
"""Times the second-level cache: an arena of which the caches hold what is needed next."""

LEAST_SHARE = 0.2
"""Of the time that products take: maps that come and go in less do so while products are computed."""


def microbatch(graph: Graph, batch: int, target: Target, algorithms: ChooseAlgorithms) -> int:
    """Images of a turn of a forward graph, which computes `batch` at most."""
    if batch == 1:
        return 1
    plan = plan_graph(run_passes(graph, prepared_passes(1, algorithms))[-1].graph, target)
    fitting = max(1, CACHES * target.l2_bytes // max(1, plan.arena_bytes))
    turns = -(-batch // fitting)
    maps = _map_bytes(plan)
    products = sum(node.macs for node in plan.graph.nodes) / (target.lanes * target.fma_units)
    is_bound = maps / target.memory_bytes_per_cycle > LEAST_SHARE * products
    pays = batch * maps > (turns - 1) * plan.param_bytes
    return -(-batch // turns) if is_bound and pays else batch


def _map_bytes(plan: Plan) -> int:
    """Read from the arena and written to it."""
    values = (v for n in plan.graph.nodes if not is_alias(plan, n) for v in (*n.operands, *n.results))
    return sum(v.type.nbytes for v in values if plan.placement(v).space is Space.ARENA)
