"""What a kernel reads an operand of its anchor through: nothing, or the prologue that makes it.

A prologue is applied to vectors of channels as they are loaded. Kernels that transform what they load, or
copy it aside, need no more than `Loader`; one that reads single elements keeps `MadeRows` in scratch memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cnnc.backend.kernel.builder import BufferHandle, Coordinate, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine
from cnnc.backend.kernels.contraction import Contraction
from cnnc.backend.kernels.expressions import emit_expression
from cnnc.backend.kernels.fetch import apart
from cnnc.backend.kernels.loops import vectors
from cnnc.backend.kernels.region import Region
from cnnc.backend.kernels.site import Arguments, Tensor
from cnnc.errors import UnsupportedError
from cnnc.ir.graph import Node, Value
from cnnc.ops.elementwise import LETTERS, Elementwise

Load = Callable[[Sequence[Coordinate]], Vec]
"""The vector at a place in memory."""


@dataclass(frozen=True)
class Loader:
    """Loads vectors of channels of an operand as the anchor sees them: from `handle`, and through `nodes`."""

    k: KernelBuilder
    region: Region
    arguments: Arguments
    handle: BufferHandle
    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, k: KernelBuilder, region: Region, arguments: Arguments, position: int) -> Loader:
        """That of the anchor's operand at `position`. Raises UnsupportedError for a prologue that reads
        anything else in full."""
        nodes = region.prologue(position)
        whole = next((o for node in nodes for o in node.operands[1:] if o.type.rank > 1), None)
        if whole is not None:
            raise UnsupportedError(f"{region.anchor.name}: its prologue reads {whole.type} besides")
        return cls(k, region, arguments, arguments.operands[region.operand(position)], nodes)

    def at(self, channel: Affine, lanes: int, count: int) -> Load:
        """How vectors are loaded that begin with `channel`; `count` lanes are valid. What there is of one per
        channel is loaded at once."""
        besides = dict.fromkeys(o for node in self.nodes for o in node.operands[1:])
        known = {operand: self._beside(operand, channel, lanes, count) for operand in besides}

        def load(place: Sequence[Coordinate]) -> Vec:
            value = self.handle.load(tuple(place), lanes, count)
            for node in self.nodes:
                assert isinstance(node.op, Elementwise)
                others = (known[o] for o in node.operands[1:])
                given = dict(zip(LETTERS, (value, *others), strict=False))
                value = emit_expression(self.k, node.op.expr, given, lanes)
            return value

        return load

    def _beside(self, operand: Value, channel: Affine, lanes: int, count: int) -> Vec:
        """An operand of which there is one value per channel, or one at all."""
        handle = self.arguments.operands[self.region.body.inputs.index(operand)]
        if not operand.type.rank:
            return handle.splat((), lanes)
        return handle.load((channel,), lanes, count)


@dataclass(frozen=True)
class MadeRows:
    """Rows of a pointwise contraction's source that an iteration makes once, for all blocks of maps."""

    loader: Loader
    tensor: Tensor
    rows: int
    lanes: int
    made: BufferHandle

    @classmethod
    def declare(cls, loader: Loader, tensor: Tensor, shape: Contraction, rows: int, lanes: int) -> MadeRows:
        size = rows, shape.source[1], apart(shape.channels)
        return cls(loader, tensor, rows, lanes, loader.k.scratch("made", size))

    def make(self, image: Affine, first: Affine) -> None:
        """Make the rows from `first` on that there are."""
        k, channels = self.loader.k, self.tensor.shape[1]
        height, width = self.tensor.shape[2:]
        with k.loop("y", first, (first + self.rows, height)) as y, k.loop("x", 0, width) as x:

            def store(start: Affine, count: int) -> None:
                place = self.tensor.place((image, start, y, x))
                value = self.loader.at(start, self.lanes, count)(place)
                self.made.store((y - first, x, start), value, count)

            vectors(k, channels, self.lanes, store)

    def splat(self, row: Coordinate, column: Coordinate, channel: Affine, lanes: int) -> Vec:
        """The element of a row, by its number among those made."""
        return self.made.splat((row, column, channel), lanes)
