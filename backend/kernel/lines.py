"""Which stores write whole cache lines: those of a `stream` buffer may go past the caches.

Read by emit.py. A store into memory that no cache holds makes the machine read the line before it changes it.
One that goes past the caches does not, if whoever stores writes all of the line at once: a run of statements
without a loop between them, or a loop along the line. Arguments that are streamed begin at a cache line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from cnnc.backend.kernel.ir import SCRATCH_ALIGNMENT, Access, Affine, For, Kernel, Statement, Store, affine
from cnnc.backend.kernel.nest import first_value, has_constant_bounds, trip_count

LINE = SCRATCH_ALIGNMENT // 4
"""Elements of a cache line."""

OPEN_LINES = 8
"""Lines that machines gather at least, before they write one of which a part is missing."""


def flat_index(strides: Sequence[int], index: Sequence[Affine]) -> Affine:
    """The place of an element among a buffer's, in elements from its beginning."""
    constant, terms = 0, dict[str, int]()
    for stride, position in zip(strides, index, strict=True):
        constant += stride * position.constant
        for variable, coefficient in position.terms:
            terms[variable] = terms.get(variable, 0) + stride * coefficient
    return Affine.of(constant, terms)


class WholeLines:
    """Finds the stores of a kernel that may go past the caches."""

    def __init__(self, kernel: Kernel) -> None:
        self._strides = {b.name: b.strides for b in kernel.arguments if b.access is Access.STREAM}
        self._multiples = dict(_multiples(kernel.body, {})) if self._strides else {}

    def __bool__(self) -> bool:
        return bool(self._strides)

    def of(self, body: Iterable[Statement], loop: For | None = None) -> frozenset[Store]:
        """Those among the statements of one body, `loop`'s if it is one's, but for the loops in it."""
        if not self:
            return frozenset()
        lines: dict[tuple[str, Affine], list[tuple[int, Store]]] = {}
        for store in body:
            if isinstance(store, Store) and store.buffer in self._strides and store.count == store.lanes:
                flat = flat_index(self._strides[store.buffer], store.index)
                start = flat.constant % LINE
                lines.setdefault((store.buffer, flat - start), []).append((start, store))
        swept = loop if len(lines) <= OPEN_LINES else None
        whole = (stores for (_, line), stores in lines.items() if self._fills(line, stores, swept))
        return frozenset(store for stores in whole for _, store in stores)

    def _fills(self, line: Affine, stores: Sequence[tuple[int, Store]], loop: For | None) -> bool:
        """Whether vectors, each with its place in the line that begins there, are all of it: those that are
        stored one after the other, or by neighbouring iterations of a loop that does no more than move on by
        one."""
        (lanes, *others) = {store.lanes for _, store in stores}
        starts = sorted(start for start, _ in stores)
        if others:
            return False
        if starts == list(range(0, LINE, lanes)):
            return self._begins(line)
        if loop is None or starts != [0] or not has_constant_bounds(loop):
            return False
        first = line.substitute(loop.variable, affine(first_value(loop)))
        is_along = line.coefficient(loop.variable) * loop.step == lanes
        return is_along and trip_count(loop) * lanes % LINE == 0 and self._begins(first)

    def _begins(self, flat: Affine) -> bool:
        """Whether a line begins there."""
        terms = (c * self._multiples.get(v, 1) for v, c in flat.terms)
        return not any(n % LINE for n in (flat.constant, *terms))


def _multiples(body: Iterable[Statement], outer: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Of what number each loop variable is always a multiple."""
    for loop in (s for s in body if isinstance(s, For)):
        starts = [n for start in loop.starts for n in (start.constant, *_terms(start, outer))]
        known = {**outer, loop.variable: math.gcd(loop.step, *starts)}
        yield loop.variable, known[loop.variable]
        yield from _multiples(loop.body, known)


def _terms(bound: Affine, outer: dict[str, int]) -> Iterator[int]:
    """Of what each term of a bound is a multiple."""
    return (coefficient * outer.get(variable, 1) for variable, coefficient in bound.terms)
