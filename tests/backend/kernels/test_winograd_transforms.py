"""Transforms against products of matrices, with operands that are zero left out, and how much they cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.interpreter import interpret
from cnnc.backend.kernel.ir import Access, Compute, Kernel, Let
from cnnc.backend.kernels.winograd_transforms import Steps, transform_tile
from cnnc.ir.types import Array
from cnnc.ops.winograd_matrices import algorithm, transposed

LANES = 4

MATRICES: dict[str, Steps] = {
    f"{name} of F({m},{r}) at {step}": steps
    for m, r, step in ((1, 1, 1), (1, 3, 1), (2, 3, 1), (4, 3, 1), (5, 3, 1), (2, 3, 2), (4, 3, 2))
    for name, steps in (
        ("B^T", algorithm(m, r, step).data_steps),
        ("G", (algorithm(m, r, step).filter,)),
        ("G^T", (transposed(algorithm(m, r, step).filter),)),
        ("A^T", (algorithm(m, r, step).result,)),
        ("A", (transposed(algorithm(m, r, step).result),)),
    )
}
names = st.sampled_from(sorted(MATRICES))


def tile_kernel(rows: Steps, columns: Steps, zeros: frozenset[tuple[int, int]]) -> Kernel:
    """y = rows x columns^T, the places in `zeros` taken as None."""
    k = KernelBuilder("tile")
    x = k.buffer("x", (len(rows[0][0]), len(columns[0][0]), LANES), Access.READ)
    y = k.buffer("y", (len(rows[-1]), len(columns[-1]), LANES), Access.WRITE)

    def load(i: int, j: int) -> Vec | None:
        return None if (i, j) in zeros else x.load((i, j, 0), LANES)

    transform_tile(k, rows, columns, LANES, load, lambda i, j, value: y.store((i, j, 0), value))
    return k.build()


def cost(kernel: Kernel) -> int:
    """Arithmetic instructions of a kernel without loops."""
    return sum(isinstance(s, Let) and isinstance(s.instruction, Compute) for s in kernel.body)


def dense(steps: Steps) -> Array:
    """Their product."""
    matrices = [np.array(step, dtype=np.float64) for step in reversed(steps)]
    return matrices[0] if len(matrices) == 1 else np.linalg.multi_dot(matrices)


@given(rows=names, columns=names, data=st.data())
@settings(max_examples=60, deadline=None)
def test_tiles(rows: str, columns: str, data: st.DataObject) -> None:
    left, right = MATRICES[rows], MATRICES[columns]
    height, width = len(left[0][0]), len(right[0][0])
    places = st.tuples(st.integers(0, height - 1), st.integers(0, width - 1))
    zeros = data.draw(st.frozensets(places))
    x = np.random.default_rng(0).uniform(-1, 1, (height, width, LANES)).astype(np.float32)
    y = np.full((len(left[-1]), len(right[-1]), LANES), np.nan, np.float32)
    interpret(tile_kernel(left, right, zeros), {"x": x, "y": y})
    seen = x.astype(np.float64)
    for place in zeros:
        seen[place] = 0.0
    exact = np.einsum("ij,jkl,mk->iml", dense(left), seen, dense(right))
    np.testing.assert_allclose(y, exact, rtol=0, atol=2e-6 * max(1.0, np.abs(exact).max()))


@pytest.mark.parametrize(
    ("name", "instructions"),
    [
        ("B^T of F(2,3) at 1", 32),
        ("A^T of F(2,3) at 1", 24),
        ("B^T of F(4,3) at 1", 144),
        ("A^T of F(4,3) at 1", 100),
        ("A of F(4,3) at 1", 80),
        ("G of F(4,3) at 1", 89),
        ("G^T of F(4,3) at 1", 90),
        ("B^T of F(5,3) at 1", 280),
        ("A^T of F(5,3) at 1", 192),
        ("B^T of F(4,3) at 2", 198),
        ("A^T of F(4,3) at 2", 156),
        ("A of F(4,3) at 2", 91),
        ("B^T of F(1,3) at 1", 0),
    ],
)
def test_instructions_of_a_tile(name: str, instructions: int) -> None:
    """Lavin and Gray count 32 and 24 for F(2x2,3x3), 156 and 90 additions for F(4x4,3x3)."""
    matrix = MATRICES[name]
    assert cost(tile_kernel(matrix, matrix, frozenset())) == instructions


def test_what_is_zero_costs_nothing() -> None:
    matrix = MATRICES["B^T of F(4,3) at 1"]
    corner = frozenset((i, j) for i in range(6) for j in range(6) if i == 0 or j == 0)
    everything = frozenset((i, j) for i in range(6) for j in range(6))
    assert cost(tile_kernel(matrix, matrix, corner)) == 5 * 11 + 6 * 11, "5 columns, then 6 rows"
    assert cost(tile_kernel(matrix, matrix, everything)) == 0
