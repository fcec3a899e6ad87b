"""What a window's sum is multiplied by to become a mean: one over its counted elements.

Padding that does not count makes windows at the border smaller. Columns of such windows are written
out, so their number is known; rows are counted when the kernel runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine
from cnnc.ir.types import TensorType
from cnnc.ops.pool import MeanPool2d, MeanPool2dGrad


@dataclass(frozen=True)
class Shares:
    """The shares of an op's windows; `rows` and `columns` are the counted ones of each window."""

    k: KernelBuilder
    op: MeanPool2d | MeanPool2dGrad
    height: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, k: KernelBuilder, op: MeanPool2d | MeanPool2dGrad, x: TensorType, y: TensorType) -> Shares:
        """Those of an op that pools `x` to `y`, [N,C,H,W] both."""
        rows, columns = (op.counts(axis, x.shape[2 + axis], y.shape[2 + axis]) for axis in (0, 1))
        return cls(k, op, x.shape[2], rows, columns)

    @property
    def one(self) -> float | None:
        """The share that all windows have; None if they differ."""
        if len({*self.rows}) > 1 or len({*self.columns}) > 1:
            return None
        return 1.0 / (self.rows[0] * self.columns[0])

    def of_window(self, oy: Affine, whole: bool, ox: Affine, taps: range, lanes: int) -> Vec | float:
        """The share of a window in row `oy`, `whole` if the row is on the map, and column `ox`, of whose
        columns `taps` are on the map: all of them, or `ox` is a constant."""
        if self.one is not None:
            return self.one
        columns = self.op.kernel[1] if len(taps) == self.op.kernel[1] else self.columns[ox.constant]
        if whole or len({*self.rows}) == 1:
            rows = self.op.kernel[0] if whole else self.rows[0]
            return 1.0 / (rows * columns)
        return self.k.broadcast(self.k.compute("div", 1.0, self._counted(oy) * float(columns)), lanes)

    def _counted(self, oy: Affine) -> Vec:
        """The counted rows of windows in row `oy`, one lane."""
        k, top = self.k, self.op.uncounted[0]
        bottom = self.op.pad[0] + self.height + self.op.pad[2] - self.op.uncounted[2]
        start = oy * self.op.stride[0]
        end = k.min(k.index(start + self.op.kernel[0], 1), float(bottom))
        return end - k.max(k.index(start, 1), float(top))
