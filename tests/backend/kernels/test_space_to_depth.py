"""Pixels to channels and back, in the layouts of maps and of weights."""

from __future__ import annotations

import pytest

from cnnc.backend.kernel.printer import print_kernel
from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.target import TARGETS
from cnnc.errors import UnsupportedError
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops.space_to_depth import DepthToSpace, SpaceToDepth
from tests.kernel_sites import check_site, site_of

OPS = [
    SpaceToDepth((2, 2), (3, 3, 4, 2)),
    SpaceToDepth((4, 4), (2, 0, 1, 3)),
    SpaceToDepth((1, 3), (0, 7, 0, 0)),
]
MAPS = [("abcd", "acdb"), ("acdb", "acdb"), ("abcd", "abcd"), ("Acdb16a", "Acdb16a")]


@pytest.mark.parametrize("op", OPS, ids=str)
@pytest.mark.parametrize("layouts", MAPS, ids=str)
@pytest.mark.parametrize("machine", ["x86-64", "avx512"])
def test_there_and_back(op: SpaceToDepth, layouts: tuple[str, str], machine: str) -> None:
    """An input of 9 x 5 pixels: with padding also blocks that reach none."""
    there = Sample(op, (f32(19, 3, 9, 5),))
    check_site(site_of(there, TARGETS[machine], layouts), there, reversed)
    back = Sample(DepthToSpace(op.block, op.pad), op.infer(f32(19, 3, 9, 5)))
    check_site(site_of(back, TARGETS[machine], layouts[::-1]), back, reversed)


def test_rows_of_blocks_and_blocks_of_maps_are_vectors() -> None:
    sample = Sample(SpaceToDepth((4, 4)), (f32(32, 3, 8, 8),))
    for layouts, store in ((("abcd", "acdb"), "store x4"), (("Acdb16a", "Acdb16a"), "store x8")):
        text = print_kernel(kernel_for(site_of(sample, TARGETS["avx2"], layouts)))
        assert store in text and "store x1" not in text


@pytest.mark.parametrize("layouts", [("Acdb16a", "acdb"), ("Bacd8b", "Bacd8b")], ids=str)
def test_other_blocks_are_refused(layouts: tuple[str, str]) -> None:
    sample = Sample(SpaceToDepth((2, 2)), (f32(16, 8, 4, 4),))
    with pytest.raises(UnsupportedError, match="blocks must be alike, and of axis 0"):
        kernel_for(site_of(sample, TARGETS["avx2"], layouts))
