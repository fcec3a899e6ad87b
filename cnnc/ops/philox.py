"""Random numbers by counting: Philox 2x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
as easy as 1, 2, 3", 2011). A number depends on a key and two counters only, so any element can be drawn
by any thread, in any order. Used by dropout's reference and by the interpreter of kernels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.float32]

MULTIPLIER = 0xD256D193
KEY_STEP = 0x9E3779B9
ROUNDS = 10
WORD = 0xFFFFFFFF


def philox2x32(key: int, first: U32, second: U32) -> tuple[U32, U32]:
    """The two words that the counters (first, second) of one shape give under a 32-bit key."""
    left, right = first.astype(np.uint32), second.astype(np.uint32)
    for number in range(ROUNDS):
        product = left.astype(np.uint64) * np.uint64(MULTIPLIER)
        high = (product >> np.uint64(32)).astype(np.uint32)
        left, right = high ^ np.uint32((key + number * KEY_STEP) & WORD) ^ right, product.astype(np.uint32)
    return left, right


def uniform(key: int, counter: F32 | np.float32, index: npt.NDArray[np.int64]) -> F32:
    """Multiples of 2 ** -24 in [0, 1) for the elements `index`: the first word's upper 24 bits.

    The counters are the element's number and the bits of the float32 `counter`, a scalar.
    """
    second = np.broadcast_to(counter.view(np.uint32), index.shape)
    word, _ = philox2x32(key, (index & WORD).astype(np.uint32), second)
    return (word >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
