"""Layouts: what readers want is what they get, with few copies, and outputs are row-major."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.layouts import LayoutRules
from cnnc.backend.target import TARGETS, Target
from cnnc.ir.graph import Graph
from cnnc.ir.layout import CHANNELS_LAST, Layout, row_major
from cnnc.ir.op import Op
from cnnc.ir.plan import is_dense
from cnnc.ir.printer import print_graph
from cnnc.ir.verify import verify_graph
from cnnc.ops.optimizer import SGD
from cnnc.ops.shape import Relayout
from cnnc.passes.absorb_flatten import AbsorbFlatten
from cnnc.passes.append_updates import training_graph
from cnnc.passes.assign_layouts import LaidOut, LayoutRule, Tensors, assign_layouts
from cnnc.passes.eliminate_dead_code import EliminateDeadCode
from cnnc.passes.plan_buffers import plan_buffers
from tests.goldens import Goldens, before, cases
from tests.nets import lenet5, tiny_lenet
from tests.plan_runner import check_same_bits
from tests.strategies import graphs

RULES = LayoutRules(TARGETS["avx2"])


def laid_out(graph: Graph, rules: LayoutRules = RULES) -> LaidOut:
    """The verified graph with layouts, which means what it meant before."""
    found = assign_layouts(graph, rules)
    verify_graph(found.graph)
    assert set(found.layouts) == set(found.graph.values)
    check_wishes(found, rules)
    check_same_bits(graph, plan_buffers(found.graph, found.layouts))
    return found


def check_wishes(found: LaidOut, rules: LayoutRules) -> None:
    """Every node has the layouts its kernel asks for, callers theirs, updates their params'."""
    for node in found.graph.nodes:
        layouts = tuple(found.layouts[o.name] for o in node.operands)
        types = tuple(o.type for o in node.operands)
        rule = rules(node.op, Tensors(types, layouts, tuple(r.type for r in node.results)))
        for wanted, has in zip(rule.operands, layouts, strict=True):
            assert wanted in (None, has)
        assert rule.results == tuple(found.layouts[r.name] for r in node.results)
    for value in (*found.graph.inputs, *found.graph.outputs):
        if value not in found.graph.params:
            assert is_dense(found.layouts[value.name], value.type)


def copies(found: LaidOut) -> list[str]:
    return [node.result.name for node in found.graph.nodes if isinstance(node.op, Relayout)]


@pytest.mark.parametrize("case", cases("assign_layouts"))
def test_golden(case: str, goldens: Goldens) -> None:
    found = laid_out(before("assign_layouts", case))
    layouts = "".join(f"{name}: {layout}\n" for name, layout in found.layouts.items())
    goldens.check_text(f"assign_layouts/{case}.after.txt", f"{print_graph(found.graph)}{layouts}")


@given(graph=graphs(max_steps=10), target=st.sampled_from(list(TARGETS.values())))
@settings(max_examples=80, deadline=None)
def test_random_graphs(graph: Graph, target: Target) -> None:
    laid_out(graph, LayoutRules(target))


def test_training_copies_only_what_two_kernels_read_differently() -> None:
    """An input gradient reads the weights the other way round; everything else shares one layout."""
    for graph in (tiny_lenet(), lenet5(2)):
        step = training_graph(AbsorbFlatten()(graph), SGD(0.1, momentum=0.9))
        found = laid_out(EliminateDeadCode()(step))
        for node in found.graph.nodes:
            if isinstance(node.op, Relayout):
                (reader,) = {found.graph.nodes[i].op.name for i in found.graph.users[node.result]}
                assert reader in ("conv2d_input_grad", "dense_input_grad"), reader


def test_fixed_params_keep_their_layout() -> None:
    graph = tiny_lenet()
    training = assign_layouts(training_graph(graph, SGD(0.1)), RULES)
    fixed = {p.name: training.layouts[p.name] for p in graph.params}
    other = {**fixed, "c1.weight": Layout("abcd"), "not.here": Layout("ab")}
    found = assign_layouts(graph, RULES, other)
    assert {p.name: found.layouts[p.name] for p in graph.params} == {**fixed, "c1.weight": Layout("abcd")}
    assert any(name.startswith("c1.weight.") for name in copies(found)), "its reader gets a copy"


def test_rules_see_the_layouts_chosen_so_far() -> None:
    """None for a param without a layout, the caller's for inputs, the rule's own for results."""
    seen: dict[str, tuple[Layout | None, ...]] = {}

    def rules(op: Op, tensors: Tensors) -> LayoutRule:
        seen.setdefault(op.name, tensors.layouts)
        return RULES(op, tensors)

    assign_layouts(tiny_lenet(), rules)
    assert seen["conv2d"] == (CHANNELS_LAST, None), "one channel: the same memory"
    assert seen["bias"] == (CHANNELS_LAST, None)
    assert seen["flatten"] == (CHANNELS_LAST,)
    assert seen["softmax_cross_entropy"] == (row_major(2), row_major(1))
