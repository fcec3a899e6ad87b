"""The runner: stages, verification between passes, blame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from cnnc.errors import VerifyError
from cnnc.ir.graph import Graph
from cnnc.ir.location import Location
from cnnc.ir.types import f32
from cnnc.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from cnnc.passes.eliminate_dead_code import EliminateDeadCode
from cnnc.passes.runner import SOURCE_STAGE, run_passes
from tests.goldens import before


@dataclass(frozen=True)
class Break:
    """A faulty pass: claims another type for the last result."""

    name: ClassVar[str] = "break"

    def __call__(self, graph: Graph) -> Graph:
        last = graph.nodes[-1]
        wrong = replace(last, results=(replace(last.result, type=f32(7)),), loc=Location("net.py", 3))
        return replace(graph, nodes=(*graph.nodes[:-1], wrong), updates=())


def test_a_stage_for_the_source_and_for_each_pass() -> None:
    graph = before("eliminate_dead_code", "chain")
    stages = run_passes(graph, (EliminateCommonSubexpressions(), EliminateDeadCode()))
    names = [SOURCE_STAGE, EliminateCommonSubexpressions.name, EliminateDeadCode.name]
    assert [stage.name for stage in stages] == names
    assert stages[0].graph is graph and stages[1].graph == graph
    assert len(stages[2].graph.nodes) == 2
    assert all(stage.seconds >= 0 for stage in stages)


def test_no_passes_leave_the_source() -> None:
    graph = before("eliminate_dead_code", "chain")
    assert [stage.graph for stage in run_passes(graph, ())] == [graph]


def test_a_pass_that_breaks_a_rule_is_named() -> None:
    graph = before("eliminate_dead_code", "chain")
    with pytest.raises(VerifyError) as caught:
        run_passes(graph, (EliminateDeadCode(), Break()))
    assert str(caught.value).startswith(
        "net.py:3: after the pass break: mul %4 has the result types (f32[7])"
    )


def test_a_broken_source_is_no_pass_fault() -> None:
    broken = Break()(before("eliminate_dead_code", "chain"))
    with pytest.raises(VerifyError, match=r"^net\.py:3: mul %4"):
        run_passes(broken, (EliminateDeadCode(),))
