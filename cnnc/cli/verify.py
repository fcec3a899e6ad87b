"""`cnnc verify`: compiled code against references, and what was proven of it."""

from __future__ import annotations

from dataclasses import asdict

import click

from cnnc.cli.common import (
    batch_option,
    json_flag,
    load_source,
    net_argument,
    print_json,
    print_table,
    weights_option,
)
from cnnc.cli.options import Compiling, compile_options
from cnnc.verify import Verification, verify_source

CHECK_COLUMNS = {"check": "left", "largest error": "right", "limit": "right", "": "left"}
PROOF_COLUMNS = {
    "kernels of": "left",
    "count": "right",
    "accesses proven in bounds": "right",
    "writes proven free of conflicts": "right",
}


@click.command(short_help="Compiled code against references.")
@net_argument
@batch_option(2)
@click.option(
    "--seed", metavar="N", type=click.IntRange(0), default=0, show_default=True, help="Of the random inputs."
)
@weights_option
@compile_options
@json_flag
def verify(net: str, batch: int, seed: int, weights: str | None, compiling: Compiling, as_json: bool) -> int:
    """Compare the compiled NET with NumPy references in float64, on random input.

    Errors are relative to the largest magnitude. For a network with a loss, reference gradients are
    compared with central differences, and compiled gradients with the reference. Also counted is what
    was proven of all kernels before they were compiled: each access stays inside its buffer, and
    parallel iterations never write what another one touches. The exit status is 1 if a check fails.

    \b
    Examples:
      cnnc verify examples/lenet5.py
      cnnc verify examples/lenet5.py --batch 5 --seed 7 --json
    """
    source = load_source(net)
    source.check_runnable()
    result = verify_source(source, batch, seed, compiling.unit, weights)
    if as_json:
        checks = [{**asdict(check), "passed": check.passed} for check in result.checks]
        proofs = [asdict(proof) for proof in result.proofs]
        print_json({"passed": result.passed, "checks": checks, "proofs": proofs})
    else:
        _print(result)
    return 0 if result.passed else 1


def _print(result: Verification) -> None:
    checks = (
        (c.name, f"{c.error:.1e}", f"{c.limit:.0e}", "ok" if c.passed else "FAILED") for c in result.checks
    )
    print_table(CHECK_COLUMNS, checks)
    click.echo()
    print_table(
        PROOF_COLUMNS, ((p.name, str(p.kernels), str(p.accesses), str(p.conflicts)) for p in result.proofs)
    )
