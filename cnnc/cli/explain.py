"""`cnnc explain`: which algorithm computes each layer, what was fused, and why not more."""

from __future__ import annotations

from dataclasses import asdict

import click

from cnnc.cli.common import (
    batch_option,
    chosen_batch,
    json_flag,
    load_source,
    net_argument,
    print_json,
    print_table,
    train_flag,
)
from cnnc.cli.options import Compiling, compile_options
from cnnc.explain import Explanation
from cnnc.explain import explain as explained

COLUMNS = {
    "layer": "left",
    "operation": "left",
    "result": "left",
    "algorithm": "left",
    "because": "left",
    "fused": "left",
    "not fused": "left",
}


@click.command(short_help="Which algorithms were chosen and what was fused, and why.")
@net_argument
@batch_option(None)
@train_flag
@compile_options
@json_flag
def explain(
    net: str,
    batch: int | None,
    train: bool,
    compiling: Compiling,
    as_json: bool,
) -> None:
    """Say for every kernel of NET which algorithm computes it and why, what was fused into it, and what was
    not and why not.

    Costs are millions of cycles of one core, as the cost model expects them.

    \b
    Examples:
      cnnc explain examples/resnet18.py
      cnnc explain examples/resnet18.py --train --batch 8 --target avx2 --json
    """
    compiled = compiling.unit(load_source(net), chosen_batch(batch, train), train)
    found = explained(compiled.main)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    print_table(COLUMNS, map(_row, found))


def _row(each: Explanation) -> tuple[str, ...]:
    shape = f"({', '.join(map(str, each.shape))})" if each.shape else "scalar"
    front = f"{' + '.join(each.prologue)} in front" if each.prologue else ""
    fused = "; ".join(filter(None, (front, " + ".join(each.fused))))
    return each.layer, each.op, shape, each.algorithm, _because(each), fused, "; ".join(each.refused)


def _because(each: Explanation) -> str:
    if each.reason in ("", "only"):
        return "no other applies" if each.reason else ""
    cheapest_first = sorted(each.offers, key=lambda offer: offer.cycles)
    costs = (f"{offer.algorithm} {offer.cycles / 1e6:.3g}" for offer in cheapest_first)
    return f"{each.reason}: {', '.join(costs)}"
