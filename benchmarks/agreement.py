"""Nothing is timed before its results agree: how far two results may lie apart, and the error if they do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cnnc.errors import CnncError
from cnnc.ir.types import Array


def difference(found: Array, wanted: Array, noise: float = 0.0) -> float:
    """The largest difference beyond the noise, relative to the largest magnitude of what is wanted."""
    if found.shape != wanted.shape:
        raise CnncError(f"the shapes {found.shape} and {wanted.shape} differ")
    largest = float(np.abs(wanted).max())
    gap = max(float(np.abs(found.astype(np.float64) - wanted).max()) - noise, 0.0)
    return gap / largest if largest else gap


def agree(
    who: str,
    found: Mapping[str, Array],
    wanted: Mapping[str, Array],
    limit: float,
    noise: Mapping[str, float] | None = None,
) -> float:
    """The largest difference over all arrays, beyond the noise of each. Raises CnncError where one is not
    below `limit`."""
    if found.keys() != wanted.keys():
        raise CnncError(f"{who} has the arrays {', '.join(found)}; ours are {', '.join(wanted)}")
    known = noise or {}
    differences = {name: difference(found[name], wanted[name], known.get(name, 0.0)) for name in wanted}
    worst = max(differences, key=lambda name: differences[name])
    if not differences[worst] < limit:
        raise CnncError(f"{who} disagrees on {worst}: relative difference {differences[worst]:.2g}")
    return differences[worst]
