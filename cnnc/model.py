"""Model: a network compiled for inference in this process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np

from cnnc.backend.interface import Interface
from cnnc.errors import ShapeError
from cnnc.ir.types import Array
from cnnc.native import Native, address

FLOAT = np.dtype(np.float32)
"""Of all results; as an object it is made but once."""


class Model:
    """`model(x)` or `model.run({name: array})`; any number of rows, computed up to `batch` at a time.

    Inputs are float32 (other number types are converted) of the declared shape with the batch axis.
    Results are new arrays. Calls from several threads run one after another.
    """

    def __init__(self, interface: Interface, weights: Mapping[str, Array], native: Native) -> None:
        self.interface, self.native = interface, native
        self.batch = interface.batch
        self.inputs = {port.name: port.shape[1:] for port in interface.inputs}
        self.outputs = {port.name: port.shape[1:] for port in interface.outputs}
        is_single = len(self.inputs) == len(self.outputs) == 1
        self._only_input = next(iter(self.inputs)) if is_single else None
        given = (weights[weight.name] for weight in interface.weights)
        self._params = native.packed(given, interface.param_bytes)
        self._run = native.function("run", len(self.inputs) + len(self.outputs) + 4)
        self._tail = (address(self._params), address(native.workspace), native.pool)
        self._result_shapes = tuple(self.outputs.values())
        self._lock = Lock()

    def __call__(self, x: Array) -> Array:
        """The only output for the only input."""
        if self._only_input is None:
            raise ShapeError(f"{self._name} has several inputs or outputs: use run({{name: array}})")
        return self._compute((self._checked(self._only_input, x),))[0]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name for all inputs by name. Raises ShapeError on missing or misfitting inputs."""
        strange = [name for name in feeds if name not in self.inputs]
        missing = [name for name in self.inputs if name not in feeds]
        if strange or missing:
            wanted = ", ".join(self.inputs)
            raise ShapeError(f"{self._name} takes the inputs {wanted}; got {', '.join(feeds) or 'none'}")
        arrays = tuple(self._checked(name, feeds[name]) for name in self.inputs)
        if len({len(a) for a in arrays}) > 1:
            counts = ", ".join(f"{n}: {len(a)}" for n, a in zip(self.inputs, arrays, strict=True))
            raise ShapeError(f"the inputs of {self._name} have different numbers of rows ({counts})")
        return dict(zip(self.outputs, self._compute(arrays), strict=True))

    @property
    def _name(self) -> str:
        return self.interface.name

    def _checked(self, name: str, x: Array) -> Array:
        shape = self.inputs[name]
        array = np.ascontiguousarray(x, np.float32)
        if array.shape[1:] != shape or array.ndim != len(shape) + 1 or not len(array):
            wanted = ",".join(map(str, ("n", *shape)))
            raise ShapeError(f"input {name} of {self._name} has shape {array.shape}; it must be ({wanted})")
        return array

    def _compute(self, arrays: Sequence[Array]) -> Sequence[Array]:
        """All rows where they are, a batch at a time; the last rows may be fewer."""
        rows = len(arrays[0])
        results = [np.empty((rows, *shape), FLOAT) for shape in self._result_shapes]
        given = (*arrays, *results)
        first = [address(array) for array in given]
        if rows <= self.batch:
            with self._lock:
                self._run(rows, *first, *self._tail)
            return results
        steps = [array.itemsize * math.prod(array.shape[1:]) for array in given]
        with self._lock:
            for start in range(0, rows, self.batch):
                places = (place + start * step for place, step in zip(first, steps, strict=True))
                self._run(min(self.batch, rows - start), *places, *self._tail)
        return results
