"""The pipeline: which passes run."""

from __future__ import annotations

import pytest

from cnnc.backend.algorithms.book import Algorithms
from cnnc.backend.target import TARGETS
from cnnc.ops.optimizer import SGD
from cnnc.passes.choose_algorithms import ChooseAlgorithms
from cnnc.passes.pool_first import PoolFirst
from cnnc.pipeline import inference_passes, training_passes


@pytest.mark.parametrize("strict", [False, True])
def test_strictly_nothing_is_summed_in_another_order(strict: bool) -> None:
    algorithms = ChooseAlgorithms(Algorithms(TARGETS["avx2"], strict))
    for passes in (inference_passes(1, algorithms), training_passes(1, SGD(), algorithms)):
        assert (PoolFirst() in passes) is not strict
