"""Proof that a kernel stays inside its buffers, by interval arithmetic (intervals.py).

Runs on every kernel, after check.py and before it is emitted or interpreted, so that no native code
of cnnc reads or writes outside the arrays it was given.
"""

from __future__ import annotations

from cnnc.backend.kernel.accesses import Touch, touches
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernel.printer import headline
from cnnc.errors import VerifyError


def prove_bounds(kernel: Kernel) -> int:
    """Prove every load and store of a checked kernel in bounds; return how many were proven.

    Statements in loops that are always empty touch nothing and are not counted. Raises VerifyError
    for the first access that may leave its buffer, with the statement, the dimension and its interval.
    """
    shapes = {buffer.name: buffer.shape for buffer in kernel.buffers}
    found = touches(kernel)
    for touch in found:
        _prove(kernel, touch, shapes[touch.buffer])
    return len(found)


def _prove(kernel: Kernel, touch: Touch, shape: tuple[int, ...]) -> None:
    for dimension, extent in enumerate(shape):
        span = touch.span(dimension)
        if span.low < 0 or span.high >= extent:
            raise VerifyError(
                f"kernel {kernel.name}: {headline(touch.statement)}: index {dimension} of {touch.buffer} "
                f"ranges over {span}, but the dimension has {extent} elements"
            )
