"""Masks: the reference's bits from the interpreter and from machine code, however the work is cut."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.backend.kernels.registry import kernel_for
from cnnc.backend.target import TARGETS, Target
from cnnc.errors import UnsupportedError
from cnnc.ir.op import Sample
from cnnc.ir.types import f32
from cnnc.ops.dropout import DropoutMask
from tests.kernel_sites import run_site, site_of
from tests.native_kernels import on_runnable_targets, run_natively


@on_runnable_targets
@pytest.mark.parametrize("shape", [(7, 33), (2, 17, 3, 5), (5, 4099)])
def test_masks_have_the_bits_of_the_reference(shape: tuple[int, ...], target: Target) -> None:
    sample = Sample(DropoutMask(0.4, 2**31 + 9, shape), (f32(),))
    site = site_of(sample, target)
    kernel = kernel_for(site)
    for step in (0.0, 1.0, 2.0**24 - 1):
        (expected,) = sample.op.reference(np.array(step, np.float32))
        for found in (
            run_site(kernel, site, [np.array(step, np.float32)], reversed),
            run_site(kernel, site, [np.array(step, np.float32)], run=run_natively(target)),
        ):
            np.testing.assert_array_equal(found[0], expected)


def test_other_layouts_are_refused() -> None:
    sample = Sample(DropoutMask(0.4, 1, (1, 3, 2, 2)), (f32(),))
    with pytest.raises(UnsupportedError, match="counts elements in acdb, not abcd"):
        kernel_for(site_of(sample, TARGETS["avx2"], ("", "abcd")))
