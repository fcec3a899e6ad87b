"""`file.py`, `file.py:name` and text graphs; mistakes of the user's file at the user's line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cnnc import CnncError, FormatError, Network, load_network
from cnnc.ir.graph import Graph
from cnnc.ir.printer import print_graph

EXAMPLES = Path(__file__).parents[2] / "examples"
NET = """
from cnnc import Network, dense

def make(units=2) -> Network:
    net = Network("made")
    net.output(dense(net.input(3), units))
    return net
"""


def written(folder: Path, text: str, name: str = "net.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def network(spec: str) -> Network:
    found = load_network(spec)
    assert isinstance(found, Network)
    return found


@pytest.mark.parametrize(
    ("example", "parameters"), [("lenet5", 61_706), ("mlp", 235_146), ("custom_activation", 6_346)]
)
def test_examples(example: str, parameters: int) -> None:
    net = network(str(EXAMPLES / f"{example}.py"))
    assert net.classes == 10
    assert sum(p.type.size for p in net.graph().params) == parameters
    assert len(net.loss_graph().outputs) == 2


def test_a_function_that_makes_the_network(tmp_path: Path) -> None:
    assert network(written(tmp_path, NET)).name == "made"
    assert network(written(tmp_path, "from __future__ import annotations\n" + NET)).name == "made"


def test_several_networks(tmp_path: Path) -> None:
    spec = written(tmp_path, NET + "a = make()\nb = Network('other')\n")
    assert network(f"{spec}:b").name == "other"
    assert network(f"{spec}:make").name == "made"
    with pytest.raises(
        CnncError, match=r"several networks; say which: .*net\.py:make, .*net\.py:a, .*net\.py:b"
    ):
        load_network(spec)
    with pytest.raises(CnncError, match=r"net\.py: no network 'c'; it has .*net\.py:make"):
        load_network(f"{spec}:c")


def test_a_network_stands_before_the_functions_that_make_one(tmp_path: Path) -> None:
    spec = written(tmp_path, NET + "net = make(3)\n")
    assert network(spec).graph().outputs[0].type.shape == (1, 3)
    assert network(f"{spec}:make").graph().outputs[0].type.shape == (1, 2)


def test_one_network_with_two_names(tmp_path: Path) -> None:
    assert network(written(tmp_path, "from cnnc import Network\na = b = Network('n')\n")).name == "n"


def test_modules_beside_the_file_can_be_imported(tmp_path: Path) -> None:
    written(tmp_path, NET, "blocks_beside.py")
    path = list(sys.path)
    spec = written(tmp_path, "import blocks_beside\nfrom dataclasses import dataclass\n"
                   "@dataclass\nclass A:\n    x: 'int' = 1\nnet = blocks_beside.make(5)\n")  # fmt: skip
    assert network(spec).graph().outputs[0].type.shape == (1, 5)
    assert sys.path == path


def test_text_graph(tmp_path: Path) -> None:
    graph = network(str(EXAMPLES / "lenet5.py")).loss_graph()
    spec = written(tmp_path, "# a comment\n" + print_graph(graph), "lenet5.graph")
    found = load_network(spec)
    assert isinstance(found, Graph)
    assert found == graph
    with pytest.raises(FormatError, match=r"bad\.graph:1: "):
        load_network(written(tmp_path, "graph @x(", "bad.graph"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\ny = x +\n", r"net\.py:2: syntax error: invalid syntax"),
        ("\n\nimport no_such_module_here\n", r"net\.py:3: ModuleNotFoundError: No module named"),
        ("def f():\n    return 1 / 0\nf()\n", r"net\.py:2: ZeroDivisionError: division by zero"),
        ("import numpy\nnumpy.zeros(-1)\n", r"net\.py:2: ValueError: negative dimensions"),
        ("raise SystemExit\n", r"net\.py:1: SystemExit$"),
        ("from cnnc import Network\nNetwork('n').input(3, 4)\n", r"net\.py:2: input: give channels"),
        ("x = 1\n", r"net\.py: no network: assign a Network to a module-level name"),
        ("def f() -> 'Network':\n    return 3\n", r"net\.py: the network function gives int, not a Network"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(CnncError, match=expected) as raised:
        load_network(written(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"cannot read none\.py: no such file or directory"):
        load_network("none.py")
    with pytest.raises(FormatError, match=r"a\.txt: neither a Python file \(\.py\) nor a text graph"):
        load_network(written(tmp_path, "hello", "a.txt"))
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="it is not UTF-8 text"):
        load_network(str(tmp_path / "b"))
    (tmp_path / "nul.py").write_bytes(b"x = 1\0")
    with pytest.raises(CnncError, match=r"nul\.py:1: "):
        load_network(str(tmp_path / "nul.py"))
