"""Every kernel of the ten example networks is proven in bounds and free of conflicts, in both directions.

Nothing is compiled to machine code. Training at full size is slow; on small images it is checked always.
"""

from __future__ import annotations

import pytest

from benchmarks.zoo import ZOO, Entry
from cnnc.backend.kernel.nest import parallel_nest
from cnnc.backend.target import TARGETS
from cnnc.source import source_of
from cnnc.units import CompiledUnit, inference_unit, training_unit

AVX2 = TARGETS["avx2"]
STEP_BATCH = 8

each_network = pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)


@each_network
@pytest.mark.parametrize("batch", [1, 8])
def test_inference(entry: Entry, batch: int) -> None:
    check_proofs(inference_unit(source_of(entry.declare(entry.size)), batch, AVX2))


@each_network
def test_training_on_small_images(entry: Entry) -> None:
    check_training(entry, entry.small)


@pytest.mark.slow
@each_network
def test_training(entry: Entry) -> None:
    check_training(entry, entry.size)


def check_training(entry: Entry, size: int) -> None:
    source = source_of(entry.declare(size))
    check_proofs(training_unit(source, entry.step_batch or STEP_BATCH, AVX2))


def check_proofs(compiled: CompiledUnit) -> None:
    """A kernel that could not be proven is refused with an error; here, that each proof says something."""
    for call in compiled.unit.calls:
        proof = call.proof
        assert proof.accesses >= len(call.kernel.arguments), call.kernel.name
        assert proof.conflicts or not parallel_nest(call.kernel)[0], call.kernel.name
