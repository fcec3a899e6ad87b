"""`cnnc dump`: every level as text, passes by name, differences."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnc.backend.kernel.parser import parse_kernel
from cnnc.frontend.load import load_network
from cnnc.frontend.network import Network
from cnnc.ir.graph import Graph
from cnnc.ir.plan_text import parse_plan
from cnnc.ops import OPS
from tests.cli.conftest import Cnnc


def test_the_source_graph_reads_back_as_a_network(cnnc: Cnnc, tiny: Path, tmp_path: Path) -> None:
    text = cnnc("dump", tiny, "--after", "source")
    path = tmp_path / "graph.txt"
    path.write_text(text)
    network, graph = load_network(str(tiny)), load_network(str(path))
    assert isinstance(network, Network) and isinstance(graph, Graph)
    assert graph == network.graph()
    assert cnnc("dump", path, "--after", "source") == text


def test_without_after_the_graph_is_that_of_all_passes(cnnc: Cnnc, tiny: Path) -> None:
    assert "= fused(" in cnnc("dump", tiny)
    assert cnnc("dump", tiny) == cnnc("dump", tiny, "--after", "fuse_epilogues")


def test_batch_and_training(cnnc: Cnnc, tiny: Path) -> None:
    assert "%image: f32[5,1,6,6]" in cnnc("dump", tiny, "--after", "set_batch", "--batch", 5)
    trained = cnnc("dump", tiny, "--train", "--after", "append_updates")
    assert "%image: f32[64,1,6,6]" in trained
    assert "update @c1.weight = " in trained


def test_diff_of_a_pass(cnnc: Cnnc, tiny: Path) -> None:
    lines = cnnc("dump", tiny, "--diff", "set_batch", "--batch", 3).splitlines()
    assert lines[:2] == ["--- before set_batch", "+++ after set_batch"]
    assert any(line.startswith("-") and "f32[1,3]" in line for line in lines)
    assert any(line.startswith("+") and "f32[3,3]" in line for line in lines)
    assert cnnc("dump", tiny, "--diff", "source") == ""
    assert cnnc("dump", tiny, "--diff", "eliminate_common_subexpressions:2") == ""


def test_unknown_passes_name_the_nearest(cnnc: Cnnc, tiny: Path) -> None:
    line = cnnc.fails("dump", tiny, "--after", "fuse_epilouges")
    assert "did you mean 'fuse_epilogues'" in line
    assert "known: source, set_batch" in line
    assert "no pass 'differentiate'" in cnnc.fails("dump", tiny, "--after", "differentiate")


def test_graph_options_need_the_graph_stage(cnnc: Cnnc, tiny: Path) -> None:
    assert "exclude each other" in cnnc.fails("dump", tiny, "--after", "source", "--diff", "source", status=2)
    assert "need --stage graph" in cnnc.fails("dump", tiny, "--stage", "asm", "--diff", "source", status=2)


def test_the_plan_parses(cnnc: Cnnc, tiny: Path) -> None:
    plan = parse_plan(cnnc("dump", tiny, "--stage", "planned"), OPS)
    assert plan.arena_bytes >= plan.live_bytes_bound


def test_each_kernel_parses(cnnc: Cnnc, tiny: Path) -> None:
    texts = cnnc("dump", tiny, "--stage", "kernels").split("\n\n")
    kernels = [parse_kernel(text) for text in texts]
    assert len(kernels) == len(set(kernels)) > 2


@pytest.mark.parametrize("target", ["host", "avx2", "arm64"])
def test_llvm_and_assembly(cnnc: Cnnc, tiny: Path, target: str) -> None:
    module = cnnc("dump", tiny, "--stage", "llvm", "--target", target)
    assert "define void @tiny_run(" in module
    assert "define void @tiny_pack(" in module
    assert "tiny_run:" in cnnc("dump", tiny, "--stage", "asm", "--target", target)


def test_unknown_target(cnnc: Cnnc, tiny: Path) -> None:
    assert "did you mean 'avx2'" in cnnc.fails("dump", tiny, "--stage", "asm", "--target", "avx3")
