"""Every element a kernel touches, by running its loops in plain Python: what the proofs are tested by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cnnc.backend.kernel.ir import Affine, Assign, For, Kernel, Let, Load, Splat, Statement, Store


@dataclass(frozen=True)
class Element:
    """One element touched by one iteration of the parallel loops."""

    iteration: tuple[int, ...]
    buffer: str
    index: tuple[int, ...]
    writes: bool


def elements(kernel: Kernel) -> Iterator[Element]:
    """All loads and stores in order of execution, element by element."""
    return _block(kernel.body, {}, ())


def out_of_bounds(kernel: Kernel) -> bool:
    """Whether some access leaves its buffer."""
    shapes = {buffer.name: buffer.shape for buffer in kernel.buffers}
    return any(
        not 0 <= i < extent
        for element in elements(kernel)
        for i, extent in zip(element.index, shapes[element.buffer], strict=True)
    )


def races(kernel: Kernel) -> bool:
    """Whether two iterations of the parallel loops touch an element that one of them writes."""
    shared = {buffer.name for buffer in kernel.arguments}
    touched: dict[tuple[str, tuple[int, ...]], set[tuple[int, ...]]] = {}
    written = set()
    for element in elements(kernel):
        if element.buffer not in shared:
            continue
        place = (element.buffer, element.index)
        touched.setdefault(place, set()).add(element.iteration)
        if element.writes:
            written.add(place)
    return any(len(touched[place]) > 1 for place in written)


def _block(
    block: tuple[Statement, ...], variables: Mapping[str, int], iteration: tuple[int, ...]
) -> Iterator[Element]:
    for statement in block:
        if isinstance(statement, For):
            first = max(_value(start, variables) for start in statement.starts)
            stop = min(_value(stop, variables) for stop in statement.stops)
            for value in range(first, stop, statement.step):
                inner = (*iteration, value) if statement.parallel else iteration
                yield from _block(statement.body, {**variables, statement.variable: value}, inner)
        else:
            yield from _touched(statement, variables, iteration)


def _touched(
    statement: Statement, variables: Mapping[str, int], iteration: tuple[int, ...]
) -> Iterator[Element]:
    access = statement.instruction if isinstance(statement, Let | Assign) else statement
    if not isinstance(access, Load | Splat | Store):
        return
    index = tuple(_value(expression, variables) for expression in access.index)
    width = 1 if isinstance(access, Splat) else access.count
    for lane in range(width):
        moved = (*index[:-1], index[-1] + lane) if index else index
        yield Element(iteration, access.buffer, moved, isinstance(access, Store))


def _value(expression: Affine, variables: Mapping[str, int]) -> int:
    return expression.constant + sum(c * variables[v] for v, c in expression.terms)
