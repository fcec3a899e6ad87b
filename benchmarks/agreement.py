"""Nothing is timed before its results agree: how far two results may lie apart, and the error if they do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cnnc.errors import CnncError
from cnnc.ir.types import Array


def difference(found: Array, wanted: Array) -> float:
    """The largest difference, relative to the largest magnitude of what is wanted."""
    if found.shape != wanted.shape:
        raise CnncError(f"the shapes {found.shape} and {wanted.shape} differ")
    largest = float(np.abs(wanted).max())
    gap = float(np.abs(found.astype(np.float64) - wanted).max())
    return gap / largest if largest else gap


def agree(who: str, found: Mapping[str, Array], wanted: Mapping[str, Array], limit: float) -> float:
    """The largest difference over all arrays. Raises CnncError where one is not below `limit`."""
    if found.keys() != wanted.keys():
        raise CnncError(f"{who} has the arrays {', '.join(found)}; ours are {', '.join(wanted)}")
    differences = {name: difference(found[name], wanted[name]) for name in wanted}
    worst = max(differences, key=lambda name: differences[name])
    if not differences[worst] < limit:
        raise CnncError(f"{who} disagrees on {worst}: relative difference {differences[worst]:.2g}")
    return differences[worst]
