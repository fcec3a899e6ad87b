"""Every kernel against its op's reference in float64: on all samples of all ops, for several targets."""

from __future__ import annotations

import pytest

from cnnc.backend.kernels.registry import KERNELS
from cnnc.backend.target import TARGETS
from cnnc.errors import UnsupportedError
from cnnc.ir.op import Sample
from cnnc.ops import OPS
from cnnc.ops.fused import Fused
from cnnc.ops.norm import BatchNorm, BatchNormTrain, BatchStatistics
from cnnc.ops.shape import Constant
from tests.kernel_sites import check_sample


def over_samples() -> pytest.MarkDecorator:
    """Runs a test for every sample of every op; kernels write float32 only."""
    found = [(f"{name}-{i}", s) for name, op in OPS.items() for i, s in enumerate(op.samples())]
    kept = [(name, s) for name, s in found if not (isinstance(s.op, Constant) and s.op.dtype != "f32")]
    return pytest.mark.parametrize("sample", [s for _, s in kept], ids=[name for name, _ in kept])


@over_samples()
@pytest.mark.parametrize("target", ["x86-64", "avx2", "avx512"])
def test_samples(sample: Sample, target: str) -> None:
    check_sample(sample, TARGETS[target])


@over_samples()
def test_parallel_loops_run_in_any_order(sample: Sample) -> None:
    check_sample(sample, TARGETS["avx2"], reversed)


def test_every_op_has_a_kernel() -> None:
    without = [op for op in OPS.values() if not any(kind in KERNELS for kind in op.__mro__)]
    # a region's kernel is its anchor's, and normalization is lowered before
    assert set(without) == {Fused, BatchNorm, BatchNormTrain, BatchStatistics}


def test_integer_constants_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="constant of i32"):
        check_sample(Sample(Constant((1,), (3,), "i32"), ()), TARGETS["avx2"])
