"""The order in which training goes through the images, equal to that of built programs.

The same algorithm stands in backend/runtime/shuffle.c, so that a network trained in this process and
by a built program sees the same batches and ends with the same weights, bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


class Shuffle:
    """Permutations of 0 .. count - 1, one per epoch, each made from the one before.

    Fisher-Yates with splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014). `seed` is taken modulo 2**64.
    """

    def __init__(self, seed: int, count: int) -> None:
        self._state = seed & MASK
        self._order = list(range(count))

    def next_order(self) -> npt.NDArray[np.int64]:
        """The next epoch's order of the images."""
        order = self._order
        for i, j in zip(range(len(order) - 1, 0, -1), self._choices(), strict=True):
            order[i], order[j] = order[j], order[i]
        return np.array(order, dtype=np.int64)

    def _choices(self) -> list[int]:
        """For i = count - 1 .. 1 the index within 0 .. i that changes places with i."""
        steps = max(len(self._order) - 1, 0)
        # The generator's k-th state is seed + k * GAMMA: all numbers at once, modulo 2**64.
        numbers = np.arange(1, steps + 1, dtype=np.uint64) * np.uint64(GAMMA) + np.uint64(self._state)
        self._state = (self._state + steps * GAMMA) & MASK
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        numbers ^= numbers >> np.uint64(31)
        chosen: list[int] = (numbers % np.arange(steps + 1, 1, -1, dtype=np.uint64)).tolist()
        return chosen
