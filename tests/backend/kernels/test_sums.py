"""Sums and their adjoint over any axes, softmax and losses at sizes their samples do not have."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.target import TARGETS
from cnnc.ir.op import Sample
from cnnc.ir.types import TensorType, f32
from cnnc.ops.loss import CorrectCount, SoftmaxCrossEntropy, SoftmaxCrossEntropyGrad, SquaredError
from cnnc.ops.reduce import Broadcast, Sum
from cnnc.ops.softmax import Softmax, SoftmaxGrad
from tests.kernel_sites import check_site, run_site, site_of

AVX2 = TARGETS["avx2"]
SUBSETS = [axes for count in (1, 2, 3, 4) for axes in combinations(range(4), count)]


@pytest.mark.parametrize("axes", SUBSETS)
@pytest.mark.parametrize("tag", ["acdb", "abcd"])
def test_sums_over_any_axes(axes: tuple[int, ...], tag: str) -> None:
    sample = Sample(Sum(axes), (f32(2, 9, 3, 5),), ((-0.2, 1.0),))
    check_site(site_of(sample, AVX2, (tag, "abcd"[: 4 - len(axes)])), sample, reversed)


@pytest.mark.parametrize("axes", SUBSETS)
@pytest.mark.parametrize("tag", ["acdb", "abcd"])
def test_repetition_along_any_axes(axes: tuple[int, ...], tag: str) -> None:
    shape = (2, 9, 3, 5)
    kept = tuple(n for axis, n in enumerate(shape) if axis not in axes)
    sample = Sample(Broadcast(axes, tuple(shape[axis] for axis in axes)), (f32(*kept),))
    check_site(site_of(sample, AVX2, ("abcd"[: len(kept)], tag)), sample, reversed)


@pytest.mark.parametrize("channels", [1, 6, 8, 24, 32, 45, 64])
@pytest.mark.parametrize("target", ["x86-64", "avx512"])
def test_bias_gradients(channels: int, target: str) -> None:
    for shape, axes in (((3, channels, 5, 7), (0, 2, 3)), ((19, channels), (0,))):
        sample = Sample(Sum(axes), (f32(*shape),))
        check_site(site_of(sample, TARGETS[target]), sample, reversed)


def test_long_sums_stay_accurate() -> None:
    sample = Sample(Sum((0, 2, 3)), (f32(3, 8, 33, 40),), ((0.9, 1.1),))
    check_site(site_of(sample, AVX2), sample)
    sample = Sample(Sum((0,)), (f32(9000),), ((0.9, 1.1),))
    check_site(site_of(sample, AVX2), sample)


@pytest.mark.parametrize("classes", [1, 3, 8, 10, 45, 70])
@pytest.mark.parametrize("target", ["x86-64", "avx2", "avx512"])
def test_rows_of_any_length(classes: int, target: str) -> None:
    logits, labels = f32(3, classes), TensorType("i32", (3,))
    spread, classed = (-30.0, 30.0), (0.0, classes - 1.0)
    for sample in (
        Sample(Softmax(), (logits,), (spread,)),
        Sample(SoftmaxGrad(), (logits, logits)),
        Sample(SoftmaxCrossEntropy(), (logits, labels), (spread, classed)),
        Sample(SoftmaxCrossEntropyGrad(), (f32(), logits, labels), ((1.0, 2.0), spread, classed)),
        Sample(CorrectCount(), (logits, labels), (spread, classed)),
    ):
        check_site(site_of(sample, TARGETS[target]), sample, reversed)


def test_the_first_of_equal_maxima_is_the_answer() -> None:
    sample = Sample(CorrectCount(), (f32(3, 5), TensorType("i32", (3,))))
    site = site_of(sample, AVX2)
    logits = np.array([[-1, 2, 2, 0, 2], [-3, -3, -3, -3, -3], [-1, -2, -1, -5, -9]], np.float32)
    for labels, expected in (((1, 0, 0), 3), ((2, 0, 2), 1), ((4, 4, 4), 0)):
        (found,) = run_site(kernel_for(site), site, (logits, np.array(labels, np.int32)))
        assert found == expected


def test_large_logits_do_not_overflow() -> None:
    sample = Sample(Softmax(), (f32(2, 7),), ((1e4, 1.0001e4),))
    check_site(site_of(sample, AVX2), sample)


def test_squared_error_over_several_chunks() -> None:
    sample = Sample(SquaredError(), (f32(9, 1001), f32(9, 1001)))
    check_site(site_of(sample, AVX2), sample)
