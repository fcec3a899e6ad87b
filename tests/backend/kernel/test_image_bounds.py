"""The proof that iterations over images stay with their own, on kernels that do and that do not."""

from __future__ import annotations

import pytest

from cnnc.backend.kernel.check import check_kernel
from cnnc.backend.kernel.image_bounds import prove_images
from cnnc.backend.kernel.parser import parse_kernel
from cnnc.errors import VerifyError

BATCH = 6


def prove(shape: str, body: str, each: int = 1) -> None:
    """Of y, that the loop n over images of the body, which `each` of them share, touches its own."""
    trips = -(-BATCH // each)
    text = f"kernel k(readwrite y: f32[{shape}], readwrite s: f32[2]) {{ {body} }}"
    kernel = parse_kernel(text.replace("LOOP", f"parallel for n in 0..{trips} images {each}"))
    check_kernel(kernel)
    assert kernel.image_loop is not None
    prove_images(kernel, kernel.image_loop, BATCH, ("y",))


@pytest.mark.parametrize(
    ("shape", "body", "each"),
    [
        ("6,5", "LOOP { for c in 0..2 { store x2 y[n, 2*c], 1.0 } }", 1),
        ("6,5", "LOOP { v = load x1 s[0] store x4 y[n, 1], 1.0 }", 1),  # what holds no images is anyone's
        ("24", "LOOP { parallel for c in 0..2 { store x2 y[4*n + 2*c], 1.0 } }", 1),
        ("18,2", "parallel for c in 0..2 { LOOP { for r in 0..3 { store x1 y[3*n + r, c], 1.0 } } }", 1),
        ("1,3,2,5", "LOOP { for i in 0..2 { store x4 y[0, n, i, 1], 1.0 } }", 2),
        ("6,5", "LOOP { for i in max(0, 4*n)..min(6, 4*n + 4) { store x4 y[i, 1], 1.0 } }", 4),
        ("6,5", "LOOP { for i in 0..0 { store x4 y[n + 1, 1], 1.0 } }", 1),
    ],
)
def test_own_images(shape: str, body: str, each: int) -> None:
    prove(shape, body, each)


@pytest.mark.parametrize(
    ("shape", "body", "each"),
    [
        ("7,5", "LOOP { store x2 y[n, 0], 1.0 }", 1),  # no equal shares
        ("6,5", "LOOP { store x2 y[0, 0], 1.0 }", 1),
        ("6,5", "LOOP { for i in 0..2 { store x2 y[n + i, 0], 1.0 } }", 1),
        ("6,5", "LOOP { for i in 0..6 { v = load x2 y[i, 0] } }", 1),
        ("24", "LOOP { parallel for c in 0..2 { store x4 y[4*n + 2*c], 1.0 } }", 1),
        ("24", "LOOP { store x2 y[4*n - 1], 1.0 }", 1),
        ("6,5", "LOOP { for i in max(0, 4*n)..min(6, 4*n + 5) { store x4 y[i, 1], 1.0 } }", 4),
    ],
)
def test_images_of_others(shape: str, body: str, each: int) -> None:
    with pytest.raises(VerifyError, match="may touch images of y that are not those of its iteration of n"):
        prove(shape, body, each)
