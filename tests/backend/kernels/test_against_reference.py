"""Every kernel against its op's reference in float64: on all samples of all ops, for several targets."""

from __future__ import annotations

import pytest

from cnnc.backend.kernels.region import Region
from cnnc.backend.kernels.registry import KERNELS
from cnnc.backend.target import TARGETS
from cnnc.ir.op import Op, Sample
from cnnc.ops import OPS
from tests.kernel_sites import check_site, site_of


def has_kernel(sample: Sample) -> bool:
    anchor = Region(site_of(sample, TARGETS["avx2"])).anchor
    return any(kind in KERNELS for kind in type(anchor).__mro__)


def over_samples() -> pytest.MarkDecorator:
    found = [(f"{name}-{i}", s) for name, op in OPS.items() for i, s in enumerate(op.samples())]
    kept = [(name, sample) for name, sample in found if has_kernel(sample)]
    return pytest.mark.parametrize("sample", [s for _, s in kept], ids=[name for name, _ in kept])


@over_samples()
@pytest.mark.parametrize("target", ["x86-64", "avx2", "avx512"])
def test_samples(sample: Sample, target: str) -> None:
    check_site(site_of(sample, TARGETS[target]), sample)


@over_samples()
def test_parallel_loops_run_in_any_order(sample: Sample) -> None:
    check_site(site_of(sample, TARGETS["avx2"]), sample, reversed)
