"""Proof that an iteration of a kernel's loop over images touches no images but its own.

Then a kernel that runs for fewer images than there is room for computes all it was asked for; and if each
iteration stands for one image, it touches nothing else: so kernels may read and write a caller's arrays that
hold just the images given. Buffers hold an equal share of their elements for each image, one behind another;
bounds.py has shown that every index stays in its dimension.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from cnnc.backend.kernel.accesses import Touch, touches
from cnnc.backend.kernel.ir import Affine, For, Kernel
from cnnc.backend.kernel.printer import headline
from cnnc.errors import VerifyError


def prove_images(kernel: Kernel, loop: For, batch: int, buffers: Collection[str]) -> None:
    """Prove it for a checked kernel's loop over images and for those buffers, which hold `batch` images.

    Raises VerifyError for the first access that may touch another iteration's images.
    """
    shapes = {buffer.name: buffer.shape for buffer in kernel.buffers if buffer.name in buffers}
    if not shapes:
        return
    for touch in touches(kernel):
        if touch.buffer in shapes and not _stays(touch, loop, batch, shapes[touch.buffer]):
            raise VerifyError(
                f"kernel {kernel.name}: {headline(touch.statement)}: may touch images of {touch.buffer} that "
                f"are not those of its iteration of {loop.variable}"
            )


def _stays(touch: Touch, loop: For, batch: int, shape: tuple[int, ...]) -> bool:
    """Whether the outer dimensions, seen as one, stay in the share of the iteration's images."""
    outer = next((d for d in range(len(shape) + 1) if math.prod(shape[:d]) % batch == 0), None)
    if outer is None:
        return False
    place = Affine()
    for extent, index in zip(shape[:outer], touch.index, strict=False):
        place = place * extent + index
    share = math.prod(shape[:outer]) // batch * loop.images
    span = touch.nest.interval(place - Affine.variable(loop.variable) * share)
    last = span.high + (touch.width - 1 if outer == len(shape) else 0)
    return span.low >= 0 and last < share
