"""Register tiles of contractions, computed from the target: how many pixels by how many vectors.

A tile holds pixels x vectors accumulators. Each step of the reduction loads its `vectors` of weights,
broadcasts one input element per pixel, and runs pixels x vectors FMAs, so a tile is bound by the
FMA units, by the two load ports, or by the latency of an accumulator; the model below takes the
largest of the three and the chooser the tile with the least total over the whole result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from cnnc.backend.target import Target

LOADS_PER_CYCLE = 2

JOINING_COST = 1.05
"""What it costs to join rows: taps that reach but one of them, at the edges."""


@dataclass(frozen=True)
class RegisterTile:
    """`pixels` result positions by `vectors` vectors of channels."""

    pixels: int
    vectors: int


def fits(target: Target, tile: RegisterTile) -> bool:
    """Whether accumulators, weights and a broadcast fit the registers without spilling."""
    broadcast = 0 if target.folds_broadcast and tile.vectors == 1 else 1
    return tile.pixels * tile.vectors + tile.vectors + broadcast <= usable_registers(target)


def usable_registers(target: Target) -> int:
    """Of more than 16 registers one in eight is left to LLVM's scheduler, which loads ahead of use: a tile
    of 14 x 2 fills 31 of AVX-512's 32 registers and spills, 13 x 2 does not."""
    return target.registers - max(0, target.registers - 16) // 8


def step_cycles(target: Target, tile: RegisterTile) -> float:
    """Cycles of one step of the reduction."""
    fmas = tile.pixels * tile.vectors / target.fma_units * (1 if target.has_fma else 2)
    loads = (tile.pixels + tile.vectors) / LOADS_PER_CYCLE
    return max(fmas, loads, float(target.fma_latency))


def split(extent: int, most: int, multiple: int = 1) -> tuple[int, ...]:
    """`extent` cut into the fewest parts of at most `most`, as equal as possible, larger ones first.

    All parts are multiples of `multiple`, which divides `extent`.
    """
    units, most_units = extent // multiple, max(1, most // multiple)
    parts = -(-units // most_units)
    small, larger = divmod(units, parts)
    return tuple((small + 1 if i < larger else small) * multiple for i in range(parts))


@dataclass(frozen=True)
class Field:
    """What is cut into tiles: rows and columns of pixels, both multiples of the `window` that a tile must
    hold whole."""

    rows: int
    columns: int
    window: tuple[int, int] = (1, 1)

    @classmethod
    def row(cls, columns: int) -> Field:
        return cls(1, columns)


LONG_ROW = Field.row(64)
"""More pixels than any register tile holds, as a contraction has with tiles from several rows and images."""


@dataclass(frozen=True)
class Shape:
    """Rows and columns of pixels of the tiles of a field, and the cycles of one step over all of them."""

    rows: int
    columns: int
    cycles: float


def vectors_for(target: Target, field: Field, vectors: int) -> int:
    """Vectors of a block of channels, for a field `vectors` wide: they fix the packing. Of equally fast ones
    the least from two on: with one, every FMA loads an element, and its many pixels fill the first cache."""
    return min(
        range(1, min(vectors, target.registers // 2 - 1) + 1),
        key=lambda v: (_total(target, field, vectors, v), v == 1, v),
    )


def block_for(target: Target, field: Field, maps: int, groups: int = 1) -> int:
    """Maps of a block as wide as the register tile of a field. It must not reach into the next group, so with
    groups it divides a group's maps."""
    lanes, group = target.lanes, maps // groups
    while lanes > 1 and lanes // 2 >= group:
        lanes //= 2
    block = lanes * vectors_for(target, field, -(-group // lanes))
    if groups > 1:
        while group % block:
            block = lanes if block > lanes else block // 2
    return block


@cache
def shape_for(target: Target, field: Field, vectors: int) -> Shape:
    """The best tiles of `vectors` for a field: of equally fast ones the lowest, and then the one that loads
    least. Rows are joined in pairs where a tile holds whole rows. A window too large for the registers
    spills."""
    return min(
        _shapes(target, field, vectors),
        key=lambda s: (s.cycles, s.rows, -s.columns),
        default=Shape(*field.window, float("inf")),
    )


def pixels_for(target: Target, pixels: int, vectors: int, rows: int = 1, multiple: int = 1) -> int:
    """Columns of the best tile of `vectors`, `rows` rows high, for rows of `pixels` columns."""
    return shape_for(target, Field(rows, pixels, (rows, multiple)), vectors).columns


def row_cycles(target: Target, pixels: int, vectors: int) -> float:
    """Cycles of one reduction step over a whole row of `pixels`, by the best tile of `vectors`."""
    return shape_for(target, Field.row(pixels), vectors).cycles


def _total(target: Target, field: Field, vectors: int, block: int) -> float:
    whole, rest = divmod(vectors, block)
    total = whole * shape_for(target, field, block).cycles
    return total + (shape_for(target, field, rest).cycles if rest else 0.0)


def _shapes(target: Target, field: Field, vectors: int) -> Iterator[Shape]:
    most = min(field.columns, usable_registers(target) // vectors)
    for columns in range(field.window[1], most + 1, field.window[1]):
        for rows in field.window[0], 2 * field.window[0]:
            joined = rows > field.window[0]
            if joined and (columns < field.columns or rows > field.rows):
                break
            if fits(target, RegisterTile(rows * columns, vectors)):
                cycles = _field_cycles(target, field, rows, columns, vectors)
                yield Shape(rows, columns, cycles * (JOINING_COST if joined else 1.0))


def _field_cycles(target: Target, field: Field, rows: int, columns: int, vectors: int) -> float:
    """Cycles of a step over all tiles of a field, those at its end smaller."""
    parts = split(field.columns, columns, field.window[1])
    widths = [(width, parts.count(width)) for width in {parts[0], parts[-1]}]
    whole, rest = divmod(field.rows, rows)
    heights = ((rows, whole), (rest, 1)) if rest else ((rows, whole),)
    return sum(
        count * sum(n * step_cycles(target, RegisterTile(height * width, vectors)) for width, n in widths)
        for height, count in heights
    )
