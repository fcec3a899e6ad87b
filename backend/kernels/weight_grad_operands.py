"""Where the tiles of a direct weight gradient find their operands: in the maps, or copied aside.

The weights of a filter row are cut into segments that tiles run along. For a source of many channels these
are the columns of the filter, and the pixels whose tap lies outside the source are left out. A source of few
channels fills no tile; there the whole filter row is one segment, and source rows that are padded are copied
to scratch memory with zeros on either side. Neighbouring pixels of wide maps lie so far apart that few of
them fit the first-level cache, whose sets they share: the channels that a part needs are copied as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cnnc.backend.kernel.builder import BufferHandle, KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.contraction import Contraction
from cnnc.backend.kernels.loops import vectors
from cnnc.backend.kernels.prologue import Loader
from cnnc.backend.kernels.rows import where_inside
from cnnc.backend.kernels.weight_grad_parts import Chunks, tile_cycles
from cnnc.backend.target import Target


@dataclass(frozen=True)
class Segment:
    """`length` weights of a filter row, `column` pixels behind its first; `columns` are those of a row of dy
    for which they meet the source."""

    number: int
    column: int
    length: int
    columns: range


@dataclass(frozen=True)
class Chunk:
    """First image and first row of dy in a chunk of pixels, and how many of each there are."""

    image: Affine
    row: Affine
    images: int
    rows: int


@dataclass(frozen=True)
class Pixel:
    """A pixel of dy, whose image and row count from the chunk's first; the source row is that under the
    filter row."""

    image: Affine
    row: Affine
    column: Affine
    source_row: Affine


def is_joined(target: Target, shape: Contraction, vectors: int) -> bool:
    """Whether tiles run along whole filter rows: where they fill the registers better that way."""
    if shape.groups > 1 or shape.kernel[1] == 1 or shape.dilation[1] > 1:
        return False
    apart = shape.kernel[1] * tile_cycles(target, shape.channels, vectors)
    return tile_cycles(target, shape.kernel[1] * shape.channels, vectors) < apart


def segments(shape: Contraction, joined: bool) -> tuple[Segment, ...]:
    """The segments of a filter row, of equal length."""
    taps, channels = shape.kernel[1], shape.channels
    if joined:
        return (Segment(0, 0, taps * channels, range(shape.result[1])),)
    return tuple(Segment(s, s * shape.dilation[1], channels, _columns(shape, s)) for s in range(taps))


def _columns(shape: Contraction, s: int) -> range:
    (phase,) = shape.phases(1)
    reach = [x for x in range(phase.count) if phase.source(x, s) in range(shape.source[1])]
    return range(reach[0], reach[-1] + 1) if reach else range(0)


def overhangs(shape: Contraction, axis: int) -> bool:
    """Whether some tap lies outside the rows (0) or columns (1) of the source."""
    (phase,) = shape.phases(axis)
    return phase.overhangs(shape.source[axis])


@contextmanager
def source_row(k: KernelBuilder, shape: Contraction, r: Affine, y: Affine) -> Iterator[Affine]:
    """The source row under filter row `r` at row `y` of dy; what is written inside runs only if there is
    one."""
    (phase,) = shape.phases(0)
    row = affine(phase.source(y, r))
    if not phase.overhangs(shape.source[0]):
        yield row
        return
    with where_inside(k, row, shape.source[0]) as inside:
        yield inside


@dataclass(frozen=True)
class Gradients:
    """dy [N,H',W',K], or copies of `length` maps of a chunk's pixels."""

    handle: BufferHandle
    copies: BufferHandle | None

    @classmethod
    def declare(cls, k: KernelBuilder, handle: BufferHandle, chunks: Chunks, length: int) -> Gradients:
        """`length` is that of a part."""
        if not chunks.copies_gradients:
            return cls(handle, None)
        size = (max(chunks.images), max(chunks.rows), handle.buffer.shape[2], length + LINE)
        return cls(handle, k.scratch("gradients", size))

    def prepare(
        self, k: KernelBuilder, chunk: Chunk, inside: Affine, map: Affine, counts: Sequence[int], lanes: int
    ) -> None:
        """Copy vectors of `counts` maps, which begin at `map`, or inside the part at `inside`."""
        if self.copies is None:
            return
        columns = self.handle.buffer.shape[2]
        with (
            k.once_or_loop("n", chunk.images) as n,
            k.once_or_loop("y", chunk.rows) as y,
            k.once_or_loop("x", columns) as x,
        ):
            for v, count in enumerate(counts):
                place = (chunk.image + n, chunk.row + y, x, map + v * lanes)
                self.copies.store((n, y, x, inside + v * lanes), self.handle.load(place, lanes, count))

    def load(self, chunk: Chunk, pixel: Pixel, inside: Affine, map: Affine, lanes: int, count: int) -> Vec:
        """A vector of maps at a pixel; where it begins, inside the part and in dy."""
        if self.copies is not None:
            return self.copies.load((pixel.image, pixel.row, pixel.column, inside), lanes)
        place = (chunk.image + pixel.image, chunk.row + pixel.row, pixel.column, map)
        return self.handle.load(place, lanes, count)


@dataclass(frozen=True)
class Maps:
    """The source [N,H,W,C], or copies of `length` channels of the rows that a chunk meets."""

    loader: Loader
    shape: Contraction
    length: int
    copies: BufferHandle | None

    @classmethod
    def declare(
        cls, k: KernelBuilder, loader: Loader, shape: Contraction, chunks: Chunks, length: int
    ) -> Maps:
        """`length` is that of a part."""
        if not chunks.copies_source:
            return cls(loader, shape, length, None)
        columns = shape.result[1] if shape.kernel[1] == 1 else shape.source[1]
        size = (max(chunks.images), max(chunks.rows), columns, length + LINE)
        return cls(loader, shape, length, k.scratch("source", size))

    @property
    def handle(self) -> BufferHandle:
        return self.loader.handle

    def prepare(self, k: KernelBuilder, r: Affine, chunk: Chunk, channel: Affine, lanes: int) -> None:
        """Copy the channels from `channel` on of the rows under filter row `r`."""
        if self.copies is None:
            return
        copies, shape = self.copies, self.shape
        with (
            k.once_or_loop("n", chunk.images) as n,
            k.once_or_loop("y", chunk.rows) as y,
            source_row(k, shape, r, chunk.row + y) as row,
            k.once_or_loop("x", copies.buffer.shape[2]) as x,
        ):
            column = x if shape.kernel[1] > 1 else x * shape.stride[1] - shape.origin[1]

            def copy(start: Affine, count: int) -> None:
                place = (chunk.image + n, row, column, channel + start)
                value = self.loader.at(channel + start, lanes, count)(place)
                copies.store((n, y, x, start), value, count)

            vectors(k, self.length, lanes, copy)

    def splat(
        self, chunk: Chunk, pixel: Pixel, segment: Segment, inside: Affine, channel: Affine, lanes: int
    ) -> Vec:
        """The source under an element of a segment: its place inside the part, and its channel."""
        shape = self.shape
        column = pixel.column * shape.stride[1] + segment.column - shape.origin[1]
        if self.copies is None:
            return self.handle.splat((chunk.image + pixel.image, pixel.source_row, column, channel), lanes)
        place = column if shape.kernel[1] > 1 else pixel.column
        return self.copies.splat((pixel.image, pixel.row, place, inside), lanes)


@dataclass(frozen=True)
class JoinedRows:
    """The source [N,H,W*C], or copies of the rows that a chunk meets, with zeros for the padding."""

    handle: BufferHandle
    shape: Contraction
    copies: BufferHandle | None

    @classmethod
    def declare(
        cls, k: KernelBuilder, handle: BufferHandle, shape: Contraction, chunks: Chunks
    ) -> JoinedRows:
        if not overhangs(shape, 1):
            return cls(handle, shape, None)
        width = ((shape.result[1] - 1) * shape.stride[1] + shape.kernel[1]) * shape.channels
        return cls(handle, shape, k.scratch("rows", (max(chunks.images), max(chunks.rows), width)))

    def prepare(self, k: KernelBuilder, r: Affine, chunk: Chunk, channel: Affine, lanes: int) -> None:
        """Copy the rows under filter row `r`, whole."""
        if self.copies is None:
            return
        copies, shape, width = self.copies, self.shape, self.copies.buffer.shape[2]
        left = shape.origin[1] * shape.channels
        right = min(width, left + shape.source[1] * shape.channels)
        zero = k.constant(0.0, lanes)
        with (
            k.once_or_loop("n", chunk.images) as n,
            k.once_or_loop("y", chunk.rows) as y,
            source_row(k, shape, r, chunk.row + y) as row,
        ):

            def clear(start: Affine, count: int) -> None:
                copies.store((n, y, start), zero, count)

            def copy(start: Affine, count: int) -> None:
                value = self.handle.load((chunk.image + n, row, start), lanes, count)
                copies.store((n, y, start + left), value, count)

            vectors(k, left, lanes, clear)
            vectors(k, right - left, lanes, copy)
            vectors(k, width - right, lanes, lambda start, count: clear(start + right, count))

    def splat(
        self, chunk: Chunk, pixel: Pixel, segment: Segment, inside: Affine, channel: Affine, lanes: int
    ) -> Vec:
        """As of Maps; the channels of all columns count on."""
        place = pixel.column * (self.shape.stride[1] * self.shape.channels) + channel
        if self.copies is None:
            return self.handle.splat((chunk.image + pixel.image, pixel.source_row, place), lanes)
        return self.copies.splat((pixel.image, pixel.row, place), lanes)


Source = Maps | JoinedRows
