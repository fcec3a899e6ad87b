"""Register tiles of contractions, computed from the target: how many pixels by how many vectors.

A tile holds pixels x vectors accumulators. Each step of the reduction loads its `vectors` of weights,
broadcasts one input element per pixel, and runs pixels x vectors FMAs, so a tile is bound by the
FMA units, by the two load ports, or by the latency of an accumulator; the model below takes the
largest of the three and the chooser the tile with the least total over the whole result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cnnc.backend.target import Target

LOADS_PER_CYCLE = 2


@dataclass(frozen=True)
class RegisterTile:
    """`pixels` result positions by `vectors` vectors of channels."""

    pixels: int
    vectors: int


def fits(target: Target, tile: RegisterTile) -> bool:
    """Whether accumulators, weights and a broadcast fit the registers without spilling.

    Of more than 16 registers one in eight is left to LLVM's scheduler, which loads ahead of use: a tile
    of 14 x 2 fills 31 of AVX-512's 32 registers and spills, 13 x 2 does not.
    """
    broadcast = 0 if target.folds_broadcast and tile.vectors == 1 else 1
    spare = max(0, target.registers - 16) // 8
    return tile.pixels * tile.vectors + tile.vectors + broadcast <= target.registers - spare


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


def vectors_for(target: Target, pixels: int, vectors: int) -> int:
    """Vectors of a block of channels, for results `pixels` long and `vectors` wide: they fix the packing."""
    return min(
        range(1, min(vectors, target.registers // 2 - 1) + 1),
        key=lambda v: (_total(target, pixels, vectors, v, 1, 1), v),
    )


def pixels_for(target: Target, pixels: int, vectors: int, rows: int = 1, multiple: int = 1) -> int:
    """Columns of the best tile of `vectors`, `rows` rows high, for rows of `pixels` columns."""
    return _best_columns(target, pixels, vectors, rows, multiple)[1]


def row_cycles(target: Target, pixels: int, vectors: int) -> float:
    """Cycles of one reduction step over a whole row of `pixels`, by the best tile of `vectors`."""
    return _best_columns(target, pixels, vectors, 1, 1)[0]


def _total(target: Target, pixels: int, vectors: int, block: int, rows: int, multiple: int) -> float:
    whole, rest = divmod(vectors, block)
    total = whole * _best_columns(target, pixels, block, rows, multiple)[0]
    return total + (_best_columns(target, pixels, rest, rows, multiple)[0] if rest else 0.0)


def _best_columns(target: Target, pixels: int, vectors: int, rows: int, multiple: int) -> tuple[float, int]:
    """Cycles of a row and columns of its best tile: of equally fast ones the one that loads least."""
    costs = _column_costs(target, pixels, vectors, rows, multiple)
    return min(costs, key=lambda cost: (cost[0], -cost[1]), default=(float("inf"), multiple))


def _column_costs(
    target: Target, pixels: int, vectors: int, rows: int, multiple: int
) -> Iterator[tuple[float, int]]:
    for columns in range(multiple, min(pixels, target.registers) + 1, multiple):
        if not fits(target, RegisterTile(rows * columns, vectors)):
            return
        sizes = split(pixels, columns, multiple)
        cycles = sum(step_cycles(target, RegisterTile(rows * size, vectors)) for size in sizes)
        yield cycles, columns
