"""The `cnnc` command: its subcommands, and the one place where errors become a line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from cnnc.cli.bench import bench
from cnnc.cli.build import build
from cnnc.cli.dump import dump
from cnnc.cli.explain import explain
from cnnc.cli.run import run
from cnnc.cli.summary import summary
from cnnc.cli.train import train
from cnnc.cli.tune import tune
from cnnc.cli.verify import verify
from cnnc.errors import CnncError
from cnnc.files import reason
from cnnc.version import VERSION

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION, message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Compiles convolutional networks to native code, for inference and for training.

    NET is a Python file with one network (lenet5.py), one of several (nets.py:small), or a graph as
    text, such as `cnnc dump` prints.

    \b
    Examples:
      cnnc summary examples/lenet5.py
      cnnc train examples/lenet5.py --images I --labels L --out lenet5.safetensors
      cnnc build examples/lenet5.py -o lenet5 --weights lenet5.safetensors
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        context.exit(EXIT_USAGE)


for command in (summary, explain, dump, build, train, run, verify, bench, tune):
    cli.add_command(command)


def main() -> None:
    """What the installed command `cnnc` calls."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status; a user's mistake is one line on stderr."""
    try:
        status = cli.main(list(arguments), prog_name="cnnc", standalone_mode=False)
    except CnncError as error:
        return _failed(str(error), EXIT_FAILURE)
    except click.UsageError as error:
        return _failed(_usage_text(error), EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        return _failed("interrupted", EXIT_INTERRUPTED)
    except MemoryError:
        return _failed("not enough memory; a smaller --batch needs less", EXIT_FAILURE)
    except OSError as error:
        _drop_output()
        place = f"cannot use {error.filename}" if error.filename else "cannot write the output"
        return _failed(f"{place}: {reason(error)}", EXIT_FAILURE)
    return status if isinstance(status, int) else 0


def _failed(text: str, status: int) -> int:
    click.echo(f"cnnc: {' '.join(text.split())}", err=True)
    return status


def _usage_text(error: click.UsageError) -> str:
    """`build: missing option '-o'; see cnnc build --help`."""
    text = error.format_message().rstrip(".")
    text = text[:1].lower() + text[1:]
    path = error.ctx.command_path if error.ctx else "cnnc"
    prefix = path.removeprefix("cnnc").strip()
    return f"{prefix}: {text}; see {path} --help" if prefix else f"{text}; see {path} --help"


def _drop_output() -> None:
    """Send what is still in the buffer of stdout nowhere: it could not be written, and the
    interpreter would complain of it again on its way out."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
