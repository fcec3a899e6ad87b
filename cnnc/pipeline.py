"""The pipeline: which passes run, in which order, and what follows them. Read this to see the compiler whole.

layer graph -> passes -> layouts -> buffer plan -> kernels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnnc.backend.layouts import LayoutRules
from cnnc.backend.lower import Program, lower
from cnnc.backend.proven import ProvenKernels
from cnnc.backend.target import Target
from cnnc.ir.graph import Graph
from cnnc.ir.layout import Layout
from cnnc.ir.plan import Plan
from cnnc.ir.verify_plan import verify_plan
from cnnc.ops.optimizer import Optimizer
from cnnc.passes.absorb_flatten import AbsorbFlatten
from cnnc.passes.append_updates import AppendUpdates
from cnnc.passes.assign_layouts import assign_layouts
from cnnc.passes.choose_algorithms import ChooseAlgorithms
from cnnc.passes.derive_masks import DeriveMasks
from cnnc.passes.differentiate import Differentiate
from cnnc.passes.draw_masks import DrawMasks
from cnnc.passes.drop_dropout import DropDropout
from cnnc.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from cnnc.passes.eliminate_dead_code import EliminateDeadCode
from cnnc.passes.fold_batch_norm import FoldBatchNorm
from cnnc.passes.fold_constants import FoldConstants
from cnnc.passes.fuse_epilogues import FuseEpilogues
from cnnc.passes.fuse_prologues import FusePrologues
from cnnc.passes.hoist_maps import HoistMaps
from cnnc.passes.join_input_grads import JoinInputGrads
from cnnc.passes.lower_batch_norm import LowerBatchNorm
from cnnc.passes.normalize_pooled import NormalizePooled
from cnnc.passes.plan_buffers import plan_buffers
from cnnc.passes.pool_first import PoolFirst
from cnnc.passes.runner import Pass, Stage, run_passes
from cnnc.passes.set_batch import SetBatch
from cnnc.passes.share_statistics import ShareStatistics
from cnnc.passes.split_preparation import SplitPreparation, preparation_graph, split_preparation
from cnnc.passes.use_batch_statistics import UseBatchStatistics

FUSION: tuple[Pass, ...] = (FuseEpilogues(), FusePrologues())
"""The last passes: which nodes one kernel computes."""


def inference_passes(batch: int, algorithms: ChooseAlgorithms | None = None) -> tuple[Pass, ...]:
    """From a forward graph at any batch to what is planned. Without `algorithms` every contraction is
    computed directly."""
    return (
        SetBatch(batch),
        DropDropout(),
        AbsorbFlatten(),
        FoldBatchNorm(),
        *_reordering_passes(algorithms),
        *_simplifying_passes(algorithms),
        *FUSION,
    )


def prepared_passes(batch: int, algorithms: ChooseAlgorithms | None = None) -> tuple[Pass, ...]:
    """The same, with what depends on the weights alone left to the preparation of the params."""
    passes = inference_passes(batch, algorithms)[: -len(FUSION)]
    return (*passes, SplitPreparation(), EliminateDeadCode(), *FUSION)


def training_passes(
    batch: int, optimizer: Optimizer, algorithms: ChooseAlgorithms | None = None
) -> tuple[Pass, ...]:
    """From a loss graph to forward, loss, backward and update as one graph."""
    return (
        SetBatch(batch),
        DrawMasks(),
        UseBatchStatistics(),
        ShareStatistics(),
        AbsorbFlatten(),
        *_reordering_passes(algorithms),
        Differentiate(),
        *_gradient_passes(algorithms),
        AppendUpdates(optimizer),
        *_simplifying_passes(algorithms),
        DeriveMasks(),
        *FUSION,
    )


def _reordering_passes(algorithms: ChooseAlgorithms | None) -> tuple[Pass, ...]:
    """Before autodiff: those that sum in another order, unless that is not wanted."""
    return () if _is_strict(algorithms) else (PoolFirst(), NormalizePooled())


def _gradient_passes(algorithms: ChooseAlgorithms | None) -> tuple[Pass, ...]:
    """Behind autodiff: what is computed for several branches at once."""
    return (HoistMaps(),) if _is_strict(algorithms) else (HoistMaps(), JoinInputGrads())


def _is_strict(algorithms: ChooseAlgorithms | None) -> bool:
    return algorithms is not None and algorithms.book.strict


def _simplifying_passes(algorithms: ChooseAlgorithms | None) -> tuple[Pass, ...]:
    return (
        LowerBatchNorm(),
        FoldConstants(),
        EliminateCommonSubexpressions(),
        EliminateDeadCode(),
        *((algorithms,) if algorithms else ()),
        EliminateCommonSubexpressions(),
    )


@dataclass(frozen=True)
class Compilation:
    """A graph after every pass, its plan and its program. `algorithms` is the pass that chose among them."""

    stages: tuple[Stage, ...]
    plan: Plan
    program: Program
    algorithms: ChooseAlgorithms | None = None


def compile_graph(
    graph: Graph,
    passes: Sequence[Pass],
    target: Target,
    shared: Plan | None = None,
    batch: int = 0,
    proven: ProvenKernels | None = None,
) -> Compilation:
    """Run the passes, choose layouts, plan buffers, write the kernels. With `shared` the params lie as in
    that plan, so that both programs can work on one param block. With `batch`, which the passes give the
    graph, the program can be run for fewer images as well. Kernels that were `proven` before are shared."""
    stages = run_passes(graph, passes)
    plan = plan_graph(stages[-1].graph, target, shared)
    algorithms = next((p for p in passes if isinstance(p, ChooseAlgorithms)), None)
    return Compilation(stages, plan, lower(plan, target, batch, proven), algorithms)


def plan_graph(graph: Graph, target: Target, shared: Plan | None = None) -> Plan:
    """Layouts and places for a graph behind all passes; with `shared` the params lie as in that plan."""
    fixed: Mapping[str, Layout] = {} if shared is None else param_layouts(shared)
    rules = LayoutRules(target)
    laid_out = assign_layouts(graph, rules, fixed)
    block = None if shared is None else shared.placements
    plan = plan_buffers(laid_out.graph, laid_out.layouts, block, rules.takes_parts)
    verify_plan(plan)
    return plan


def compile_preparation(
    main: Compilation,
    weights: Sequence[str],
    states: Mapping[str, float],
    target: Target,
    proven: ProvenKernels | None = None,
) -> Compilation:
    """The program that fills the params of `main`: from its weights by name, in their order, and for
    training from the numbers its states begin with."""
    names = [stage.name for stage in main.stages]
    split = names.index(SplitPreparation.name) if SplitPreparation.name in names else 0
    given = main.stages[split - 1].graph
    nodes = split_preparation(given).nodes if split else ()
    params = {p.name: p for p in given.params}
    graph = preparation_graph(main.plan.graph, [params[w] for w in weights], nodes, states)
    passes = (EliminateDeadCode(), *FUSION)
    return compile_graph(graph, passes, target, shared=main.plan, proven=proven)


def param_layouts(plan: Plan) -> Mapping[str, Layout]:
    """How the params lie in a plan."""
    return {param.name: plan.layout(param) for param in plan.graph.params}
