"""Proof that the iterations of a kernel's parallel loops never touch an element another one writes.

Two iterations of a parallel loop over v, of equal outer variables, are kept apart by one dimension of
a buffer if all its indices there are a*v + rest, where `rest` stays in one common window no wider than
|a| * step: then each iteration has a window of its own. `a` is found by replacing the variables inside
the loop with their starts, so that blocks whose inner loop begins at the block are seen as well:

    parallel for b in 0..7 { for i in 8*b..min(8*b + 8, 50) { store x1 y[i], ... } }

has i = 8*b + (0..7). Outer variables are equal on both sides and cancel, as part of the same base.
Accesses whose indices in some dimension have no value in common, such as those of the two halves of an array,
never meet; then each half is looked at alone.
Scratch buffers are each iteration's own and never in conflict.
"""

from __future__ import annotations

from cnnc.backend.kernel.accesses import Touch, touches
from cnnc.backend.kernel.intervals import Nest
from cnnc.backend.kernel.ir import Affine, For, Kernel
from cnnc.backend.kernel.printer import headline
from cnnc.errors import VerifyError


def prove_no_conflicts(kernel: Kernel) -> int:
    """Prove the parallel loops of a checked kernel free of conflicts; return the (loop, buffer) pairs.

    Raises VerifyError that names the loop, the buffer and the accesses that may meet.
    """
    found = touches(kernel)
    shared = {buffer.name for buffer in kernel.arguments}
    names = dict.fromkeys(touch.buffer for touch in found if touch.writes and touch.buffer in shared)
    written = {name: [touch for touch in found if touch.buffer == name] for name in names}
    loops = _parallel_loops(kernel)
    for loop in loops:
        for name, accesses in written.items():
            if not _kept_apart(loop, accesses):
                raise VerifyError(_conflict(kernel, loop, name, accesses))
    return len(loops) * len(written)


def _parallel_loops(kernel: Kernel) -> list[For]:
    """The parallel loops, outermost first; check.py has seen that they enclose the whole kernel."""
    loops: list[For] = []
    body = kernel.body
    while body and isinstance(body[0], For) and body[0].parallel:
        loops.append(body[0])
        body = body[0].body
    return loops


def _kept_apart(loop: For, accesses: list[Touch]) -> bool:
    span = Nest().enter(loop).interval(Affine.variable(loop.variable))
    if span.low == span.high:
        return True  # a single iteration meets no other
    return _apart(loop, accesses)


def _apart(loop: For, accesses: list[Touch]) -> bool:
    """Whether one dimension keeps the iterations of `loop` apart, or does in every half of the array."""
    dimensions = range(len(accesses[0].index))
    if any(_separates(loop, accesses, dimension) for dimension in dimensions):
        return True
    halves = next((h for d in dimensions if len(h := _disjoint(accesses, d)) > 1), ())
    return bool(halves) and all(_apart(loop, half) for half in halves)


def _disjoint(accesses: list[Touch], dimension: int) -> list[list[Touch]]:
    """The accesses in groups whose indices in `dimension` have no value in common."""
    spans = [(touch.span(dimension, Affine(0)), touch) for touch in accesses]
    groups: list[list[Touch]] = []
    end = 0
    for span, touch in sorted(spans, key=lambda each: each[0].low):
        if not groups or span.low > end:
            groups.append([])
        groups[-1].append(touch)
        end = max(end, span.high)
    return groups


def _separates(loop: For, accesses: list[Touch], dimension: int) -> bool:
    """Whether `dimension` alone keeps the iterations of `loop` apart."""
    for base in {base for touch in accesses for base in _bases(loop, touch, dimension)}:
        rests = [touch.span(dimension, base) for touch in accesses]
        width = max(rest.high for rest in rests) - min(rest.low for rest in rests) + 1
        if width <= abs(base.coefficient(loop.variable)) * loop.step:
            return True
    return False


def _bases(loop: For, touch: Touch, dimension: int) -> set[Affine]:
    """Affine expressions in the variables of `loop` and the loops around it that the index follows."""
    forms = {touch.index[dimension]}
    for inner in reversed(touch.nest.ranges):
        if inner.variable == loop.variable:
            break
        forms = {form.substitute(inner.variable, lower) for form in forms for lower in inner.lowers}
    return {Affine(0, form.terms) for form in forms if form.coefficient(loop.variable)}


def _conflict(kernel: Kernel, loop: For, buffer: str, accesses: list[Touch]) -> str:
    shown = dict.fromkeys(headline(touch.statement) for touch in accesses)
    listed = "; ".join(list(shown)[:4]) + ("; ..." if len(shown) > 4 else "")
    return (
        f"kernel {kernel.name}: iterations of parallel loop {loop.variable} may touch the same elements "
        f"of {buffer}, which they write: {listed}"
    )
