"""Nothing is timed before its results agree: how far two results may lie apart, and the error if they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cnnc.errors import CnncError
from cnnc.ir.types import Array

Distance = Callable[[Array, Array], float]


def largest(found: Array, wanted: Array) -> float:
    """The largest difference, relative to the largest magnitude of what is wanted."""
    return _share(float(np.abs(_gap(found, wanted)).max()), float(np.abs(wanted).max()))


def typical(found: Array, wanted: Array) -> float:
    """The root mean square of the difference, relative to that of what is wanted.

    For gradients: a unit so near to the kink of a relu, or of a max pool, that rounding decides turns single
    elements into others, and leaves the whole as it is.
    """
    return _share(float(np.linalg.norm(_gap(found, wanted))), float(np.linalg.norm(wanted)))


def agree(
    who: str,
    found: Mapping[str, Array],
    wanted: Mapping[str, Array],
    limit: float,
    distance: Distance = largest,
) -> float:
    """How far the arrays lie apart that do most. Raises CnncError where that is not below `limit`."""
    if found.keys() != wanted.keys():
        raise CnncError(f"{who} has the arrays {', '.join(found)}; ours are {', '.join(wanted)}")
    distances = {name: distance(found[name], wanted[name]) for name in wanted}
    worst = max(distances, key=lambda name: (np.isnan(distances[name]), distances[name]))
    if not distances[worst] < limit:
        raise CnncError(f"{who} disagrees on {worst}: relative difference {distances[worst]:.2g}")
    return distances[worst]


def _gap(found: Array, wanted: Array) -> Array:
    if found.shape != wanted.shape:
        raise CnncError(f"the shapes {found.shape} and {wanted.shape} differ")
    return np.subtract(found, wanted, dtype=np.float64)


def _share(gap: float, size: float) -> float:
    return gap / size if size else gap
