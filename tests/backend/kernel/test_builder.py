"""What the builder makes of several instructions."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Access


@pytest.mark.parametrize("function", ["add", "max", "min"])
@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("missing", [0, 1, 3])
def test_vectors_reduced_together_have_the_bits_of_each(function: str, lanes: int, missing: int) -> None:
    count = max(1, lanes - missing)
    k = KernelBuilder("reduced")
    x = k.buffer("x", (count, lanes), Access.READ)
    each, together = (k.buffer(name, (count,), Access.WRITE) for name in ("each", "together"))
    for row in range(count):
        each.store((row,), k.reduce(function, x.load((row, 0), lanes)))
    vectors = [x.load((row, 0), lanes) for row in range(count)]
    together.store((0,), k.reduce_each(function, vectors), count)
    memory = {
        "x": np.random.default_rng(lanes).standard_normal((count, lanes)).astype(np.float32),
        "each": np.zeros(count, np.float32),
        "together": np.ones(count, np.float32),
    }
    interpret(k.build(), memory)
    np.testing.assert_array_equal(memory["together"], memory["each"])
