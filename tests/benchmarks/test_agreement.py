"""Results that agree pass, those that do not are named; one wrong element counts in full or on average."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.agreement import agree, largest, typical
from cnnc.errors import CnncError

WANTED = np.array([1.0, -4.0, 2.0, 2.0])


def test_the_distances() -> None:
    found = WANTED + np.array([0.0, 0.0, 2.0, 0.0])
    assert largest(found, WANTED) == pytest.approx(2 / 4)
    assert typical(found, WANTED) == pytest.approx(2 / 5)
    assert largest(found, np.zeros(4)) == 4.0


def test_what_agrees() -> None:
    assert agree("it", {"a": WANTED * 1.001, "b": WANTED}, {"a": WANTED, "b": WANTED}, 1e-2) == pytest.approx(
        1e-3
    )


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a": WANTED, "b": WANTED + 1}, "it disagrees on b: relative difference 0.25"),
        ({"a": WANTED * np.nan, "b": WANTED + 1}, "it disagrees on a: relative difference nan"),
        ({"a": WANTED}, "it has the arrays a; ours are a, b"),
        ({"a": WANTED[:1], "b": WANTED}, r"the shapes \(1,\) and \(4,\) differ"),
    ],
)
def test_what_does_not(found: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(CnncError, match=message):
        agree("it", found, {"a": WANTED, "b": WANTED}, 1e-2)
