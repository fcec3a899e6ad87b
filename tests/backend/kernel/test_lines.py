"""Which stores fill whole cache lines."""

from __future__ import annotations

import pytest

from cnnc.backend.kernel.ir import For, Statement, Store
from cnnc.backend.kernel.lines import WholeLines
from cnnc.backend.kernel.parser import parse_kernel
from cnnc.backend.kernel.printer import print_affine


def streamed(body: str, buffer: str = "stream y: f32[8,64]") -> list[str]:
    """The last index of every store of the body that may go past the caches."""
    kernel = parse_kernel(f"kernel k({buffer}) {{ {body} }}")
    lines = WholeLines(kernel)

    def found(statements: tuple[Statement, ...], loop: For | None = None) -> list[str]:
        whole = lines.of(statements, loop)
        inside = [place for s in statements if isinstance(s, For) for place in found(s.body, s)]
        return [print_affine(s.index[-1]) for s in statements if isinstance(s, Store) and s in whole] + inside

    return found(kernel.body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("store x16 y[3, 16], 1.0", ["16"]),
        ("store x8 y[3, 24], 1.0 store x8 y[3, 16], 1.0", ["24", "16"]),
        ("for i in 0..8 { for j in 0..4 { store x16 y[i, 16*j], 1.0 } }", ["16*j"]),
        ("for j in 16..64 step 16 { store x8 y[0, j], 1.0 store x8 y[0, j + 8], 1.0 }", ["j", "j + 8"]),
        ("for i in 0..2 { for j in max(0, 16*i)..64 step 32 { store x16 y[0, j], 1.0 } }", ["j"]),
        ("for i in 0..4 { store x4 y[i, 0], 1.0 store x4 y[i, 4], 1.0 } store x16 y[0, 0], 1.0", ["0"]),
    ],
)
def test_all_of_a_line(body: str, expected: list[str]) -> None:
    assert streamed(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        "store x16 y[3, 8], 1.0",  # two lines, a half of each
        "store x16 y[3, 16], 1.0 count 15",
        "store x8 y[3, 16], 1.0",
        "store x8 y[3, 8], 1.0 store x8 y[3, 16], 1.0",  # halves of two lines
        "store x8 y[3, 16], 1.0 store x8 y[3, 16], 2.0",
        "store x8 y[3, 16], 1.0 store x4 y[3, 24], 1.0",
        "store x8 y[3, 16], 1.0 for i in 0..2 { store x8 y[3, 24], 1.0 }",
        "for j in 0..48 step 8 { store x16 y[0, j], 1.0 }",
        "for i in 0..2 { for j in 8*i..40 step 16 { store x16 y[0, j], 1.0 } }",
    ],
)
def test_less_than_a_line(body: str) -> None:
    assert streamed(body) == []


@pytest.mark.parametrize(
    ("body", "is_whole"),
    [
        ("for i in 0..8 { for j in 0..4 { store x8 y[i, 8*j + 16], 1.0 } }", True),
        ("for j in 0..64 step 8 { for i in 0..2 { v = load x8 x[8*i] } store x8 y[0, j], 1.0 }", True),
        ("for j in 16..32 step 4 { store x4 y[0, j], 1.0 store x4 y[1, j], 1.0 }", True),
        ("for j in 0..3 { store x8 y[0, 8*j], 1.0 }", False),  # the last line is half full
        ("for j in 0..2 { store x8 y[0, 8*j + 8], 1.0 }", False),
        ("for j in 0..2 { store x8 y[0, 16*j], 1.0 }", False),
        ("for j in 8..24 step 8 { store x8 y[0, j], 1.0 }", False),
        ("for i in 0..2 { for j in i..2 { store x8 y[0, 8*j], 1.0 } }", False),
        ("for j in 0..4 { for i in 0..2 { store x8 y[i, 8*j], 1.0 } }", False),
        ("for j in 0..4 { " + " ".join(f"store x8 y[{i}, 8*j], 1.0" for i in range(9)) + " }", False),
    ],
)
def test_a_line_by_neighbouring_iterations(body: str, is_whole: bool) -> None:
    found = streamed(body, "read x: f32[16], stream y: f32[9,64]")
    assert len(found) == (body.count("store") if is_whole else 0)


def test_rows_that_begin_inside_a_line() -> None:
    body = "for i in 0..4 { store x16 y[i, 0], 1.0 } store x16 y[2, 0], 1.0"
    assert streamed(body, "stream y: f32[4,24]") == ["0"]
    assert streamed(body, "stream y: f32[4,24] pitch 48") == ["0", "0"]


def test_only_what_is_streamed() -> None:
    assert streamed("store x16 y[0, 0], 1.0", "write y: f32[8,64]") == []
    assert not WholeLines(parse_kernel("kernel k(readwrite y: f32[64]) { store x16 y[0], 1.0 }"))
