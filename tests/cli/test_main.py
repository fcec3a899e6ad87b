"""The command as a whole: help, exit statuses, one line for every mistake, pipes that close early."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from cnnc.cli import main as cli_main
from cnnc.cli.main import cli
from cnnc.version import VERSION
from tests.cli.conftest import TINY, Cnnc

COMMAND = [sys.executable, "-c", "from cnnc.cli.main import main; main()"]


def test_help_lists_the_commands_and_every_command_has_an_example(cnnc: Cnnc) -> None:
    listed = cnnc("--help")
    assert sorted(cli.commands) == [
        "bench",
        "build",
        "dump",
        "explain",
        "run",
        "summary",
        "train",
        "tune",
        "verify",
    ]
    for name in cli.commands:
        assert f"  {name} " in listed
        assert f"cnnc {name} " in cnnc(name, "--help")


def test_version(cnnc: Cnnc) -> None:
    assert cnnc("--version") == f"cnnc {VERSION}\n"


def test_no_command_shows_the_help_as_a_usage_error(cnnc: Cnnc) -> None:
    result = cnnc.result()
    assert result.status == 2
    assert result.out.startswith("Usage: cnnc")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["sumary"], "sumary"),
        (["summary"], "missing argument 'net'"),
        (["summary", "net.py", "--bath", "3"], "did you mean '--batch'"),
        (["summary", "net.py", "--batch", "0"], "'--batch': 0 is not in the range"),
        (["build", "net.py"], "missing option '-o'"),
        (["build", "net.py", "-o", "x", "--emit", "exe"], "'exe' is not one of"),
    ],
)
def test_usage_errors_are_one_line_and_status_2(cnnc: Cnnc, arguments: list[str], complaint: str) -> None:
    line = cnnc.fails(*arguments, status=2)
    assert complaint in line.lower()
    assert line.endswith("--help")


def test_mistakes_in_the_network_file(cnnc: Cnnc, tmp_path: Path) -> None:
    assert "cannot read" in cnnc.fails("summary", tmp_path / "missing.py")
    path = tmp_path / "net.py"
    path.write_text("x = 1\n")
    assert "no network" in cnnc.fails("summary", path)
    path.write_text(TINY + "\nother = Network('other')\n")
    assert f"several networks; say which: {path}:net, {path}:other" in cnnc.fails("summary", path)
    assert "network 'other' has no input" in cnnc.fails("summary", f"{path}:other")
    path.write_text(TINY.replace("net.output", "# net.output").replace("net.loss", "# net.loss"))
    assert "has no output" in cnnc.fails("summary", path)
    path.write_text(TINY.replace("activation=relu", "activaton=relu"))
    assert "net.py:6: conv2d" in cnnc.fails("summary", path)
    path.write_text("import nothing_of_that_name\n")
    assert "net.py:1: ModuleNotFoundError" in cnnc.fails("summary", path)
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in cnnc.fails("summary", path)


def test_interrupts_and_lack_of_memory(cnnc: Cnnc, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: type[BaseException]) -> None:
        def command() -> None:
            raise error

        monkeypatch.setitem(cli_main.cli.commands, "fail", click.Command("fail", callback=command))

    raising(KeyboardInterrupt)
    result = cnnc.result("fail")
    assert (result.status, result.err.strip()) == (130, "cnnc: interrupted")
    raising(MemoryError)
    assert "not enough memory" in cnnc.fails("fail")


def test_a_closed_pipe_is_quiet(tiny: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "dump", str(tiny), "--stage", "llvm"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 1
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(tiny: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "summary", str(tiny)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == "cnnc: cannot write the output: no space left on device\n"
    assert done.returncode == 1
