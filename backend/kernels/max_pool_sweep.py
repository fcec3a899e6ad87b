"""Gradients of max pooling with small windows: a sweep over the map that visits x, dy and dx once.

The first maximum of a window is found in two steps, and its dy goes back in the same two:

    h[y, ox] = the largest x of the window's columns in row y     p[y, ox] = the first column that has it
    g[y, ox] = dy of the windows in column ox whose first largest h is in row y
    dx[y, c] = g[y, ox] of the windows ox whose p[y, ox] is column c

h, p and g of a row serve all windows that share the row. The map is cut into blocks of rows, and a block is
visited from left to right, all channels of a place together, which is the order of memory. What a block knows
of rows that it shares with the next one waits in scratch memory, and so do sums for columns that are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from cnnc.backend.kernel.builder import BufferHandle, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernel.lines import LINE
from cnnc.backend.kernels.loops import nest
from cnnc.backend.kernels.pool_blocks import Block, each_block
from cnnc.backend.kernels.pool_cells import Channels, PoolGrad
from cnnc.backend.kernels.windows import Windows

AHEAD = 16
"""Lines of a row of x between what is used and what is asked for: time enough for memory to answer."""

SHARE = 2
"""Iterations of the parallel nest for each thread, at least."""


@dataclass(frozen=True)
class Line:
    """h, p and g of a row, for a column of windows. A row that is new has no g yet."""

    h: Vec
    p: Vec
    g: Vec | None = None


@dataclass(frozen=True)
class Tile:
    """A block of rows, a column of cells, and a vector of channels, of that number in its part of them."""

    rows: Block
    column: Block
    at: Channels
    number: Affine


def swept_max_pool2d_grad(grad: PoolGrad) -> Kernel:
    """dy, x, y -> dx: the first place of a window that has its largest x gets its dy. y is not read, for
    what it says of x is cheaper computed than loaded."""
    sweep, k = _Sweep(grad), grad.k
    with nest(k, (grad.images, sweep.parts), parallel=True, images=grad.marked) as (image, part):

        def tiles(rows: Block, column: Block) -> None:
            sweep.vectors(image, part, lambda at, number: sweep.tile(Tile(rows, column, at, number)))

        def across(rows: Block) -> None:
            each_block(k, grad.windows, 1, 1, lambda column: tiles(rows, column))

        each_block(k, grad.windows, 0, sweep.most, across)
    return k.build()


@dataclass(frozen=True)
class _Sweep:
    """Writes the sweep."""

    grad: PoolGrad

    @property
    def windows(self) -> Windows:
        return self.grad.windows

    @property
    def lanes(self) -> int:
        return self.grad.region.site.lanes(self.grad.channels)

    @cached_property
    def most(self) -> int:
        """Rows of cells in a block. Each block of rows of x and dx is a stream of its own from memory."""
        return max(1, self.grad.region.site.target.registers // 8 // self.windows.stride[0])

    @cached_property
    def parts(self) -> int:
        """Parts of the channels: one, unless there are too few images for the threads."""
        vectors = -(-self.grad.channels // self.lanes)
        wanted = -(-SHARE * self.grad.region.site.target.threads // self.grad.images)
        return -(-vectors // max(1, vectors // wanted))

    @cached_property
    def part(self) -> int:
        """Vectors of a part."""
        return -(-self.grad.channels // (self.lanes * self.parts))

    @cached_property
    def waiting(self) -> BufferHandle:
        """h, p and g of the rows that blocks share, for each column of windows and vector."""
        each = 3 * self.windows.shared(0) * self.lanes
        return self.grad.k.scratch("waiting", (self.windows.result[1], self.part * each))

    @cached_property
    def carry(self) -> BufferHandle:
        """Sums of a block's rows of dx for the columns that windows share, for each vector."""
        each = self.most * self.windows.stride[0] * self.windows.shared(1) * self.lanes
        return self.grad.k.scratch("carry", (self.part * each,))

    def vectors(self, image: Affine, part: Affine, body: Callable[[Channels, Affine], None]) -> None:
        """`body` for the vectors of a part of an image's channels, and their numbers in the part."""
        k, lanes, first = self.grad.k, self.lanes, part * self.part
        whole, rest = divmod(self.grad.channels, lanes)
        if whole:
            with k.loop("j", 0, (self.part, whole - first)) as j:
                body(Channels(image, (first + j) * lanes, lanes, lanes), j)
        if rest:
            with k.loop("j", (0, whole - first), (self.part, whole - first + 1)) as j:
                body(Channels(image, (first + j) * lanes, lanes, rest), j)

    def tile(self, tile: Tile) -> None:
        """Window by window: read the rows that are new, give dy to one of its rows, finish those that no
        later window has."""
        rows, has_windows = tile.rows, bool(tile.column.taps)
        self._ahead(tile)
        lines = {r: self._waited(tile, r) for r in rows.waiting if has_windows}
        left = list(rows.places)
        for number in range(len(rows.taps)):
            if has_windows:
                self._window(tile, number, lines)
            while left and left[0] < (number + 1) * rows.step:
                self._finish(tile, left.pop(0), lines)
        for r in left:
            self._finish(tile, r, lines)
        for r in rows.leaving if has_windows else ():
            line, slot = lines[r], r - rows.cells * rows.step
            for i, value in enumerate((line.h, line.p, _gained(line))):
                self.waiting.store(self._place(tile, slot, i), value)

    def _ahead(self, tile: Tile) -> None:
        """Ask for what a column of cells behind this one has in memory."""
        rows, column, at, across = tile.rows, tile.column, tile.at, self.windows.stride[1]
        distance = -(-AHEAD * LINE // (self.grad.channels * across))
        ox = column.start + distance
        x, dy = self.grad.pixels(1, at), self.grad.pixels(0, at)
        shared = self.windows.shared(1)
        for r in rows.new if self.grad.is_large(x.tensor) else ():
            for c in range(shared, shared + across):
                x.prefetch(self.windows.row(rows.start, r), self.windows.column(ox, c))
        for number in range(len(rows.taps)) if self.grad.is_large(dy.tensor) else ():
            dy.prefetch(rows.start + number, ox)
        places = [(self.windows.row(rows.start, r), c) for r in rows.places for c in range(across)]
        self.grad.ahead(at, [(y, self.windows.column(ox, c)) for y, c in places])

    def _place(self, tile: Tile, slot: int, i: int) -> tuple[Affine, Affine]:
        """Where h, p or g (i = 0, 1, 2) of a shared row waits."""
        each = 3 * self.windows.shared(0) * self.lanes
        return tile.column.start, tile.number * each + (3 * slot + i) * self.lanes

    def _waited(self, tile: Tile, slot: int) -> Line:
        """What the block above knew of a row."""
        return Line(*(self.waiting.load(self._place(tile, slot, i), self.lanes) for i in range(3)))

    def _window(self, tile: Tile, number: int, lines: dict[int, Line]) -> None:
        """Give the dy of a window to the first of its rows that has the largest h."""
        k, own = self.grad.k, [number * tile.rows.step + t for t in tile.rows.taps[number]]
        for r in own:
            if r not in lines:
                lines[r] = self._read(tile, r)
        largest = [lines[own[0]].h]
        for r in own[1:-1]:
            largest.append(k.max(largest[-1], lines[r].h))
        rest = self.grad.pixels(0, tile.at).load(tile.rows.start + number, tile.column.start)
        for r, above in zip(reversed(own[1:]), reversed(largest), strict=False):
            line = lines[r]
            added, other = (rest, 0.0) if line.g is None else (line.g + rest, line.g)
            gained = k.compute("select_lt", above, line.h, added, other)
            rest = k.compute("select_lt", above, line.h, 0.0, rest)
            lines[r] = Line(line.h, line.p, gained)
        line = lines[own[0]]
        lines[own[0]] = Line(line.h, line.p, rest if line.g is None else line.g + rest)

    def _read(self, tile: Tile, r: int) -> Line:
        """The largest x of the window's columns in a row, and which it is."""
        k, x, (taps,) = self.grad.k, self.grad.pixels(1, tile.at), tile.column.taps
        y, ox = self.windows.row(tile.rows.start, r), tile.column.start
        h = x.load(y, self.windows.column(ox, taps[0]))
        p = k.constant(float(taps[0]), self.lanes)
        for s in taps[1:]:
            value = x.load(y, self.windows.column(ox, s))
            p = k.compute("select_lt", h, value, float(s), p)
            h = k.max(h, value)
        return Line(h, p)

    def _finish(self, tile: Tile, r: int, lines: dict[int, Line]) -> None:
        """Give g of a row to its columns of dx, and finish those that no later window has."""
        column, sums = tile.column, dict[int, Vec]()
        zero = self.grad.k.constant(0.0, self.lanes)
        if r in (*tile.rows.waiting, *tile.rows.new):
            each = self.windows.shared(1) * self.lanes
            first = tile.number * (self.most * tile.rows.step * each) + r * each
            sums = {c: self.carry.load((first + c * self.lanes,), self.lanes) for c in column.waiting}
            for taps in column.taps:
                self._spread(sums, lines[r], taps)
            for c in column.leaving:
                self.carry.store((first + (c - column.step) * self.lanes,), sums.get(c, zero))
        if column.places:
            y = self.windows.row(tile.rows.start, r)
            values = [(self.windows.column(column.start, c), sums.get(c, zero)) for c in column.places]
            self.grad.finish(tile.at, y, values)

    def _spread(self, sums: dict[int, Vec], line: Line, taps: range) -> None:
        """Add g of a row to the column that has the largest x."""
        for s in taps:
            known, g = sums.get(s), _gained(line)
            added, other = (g, 0.0) if known is None else (known + g, known)
            is_only = len(taps) == 1
            sums[s] = added if is_only else self.grad.k.compute("select_eq", line.p, float(s), added, other)


def _gained(line: Line) -> Vec:
    """g of a row that a window has visited."""
    assert line.g is not None
    return line.g
