"""The region a kernel computes: its anchor, and the epilogue applied to the anchor's values in registers.

A kernel function computes vectors of the anchor's result, each at a `Point`, and hands them to
`Epilogue.finish`, which runs the fused ops on them and stores every result of the site. A plain op
is a region without an epilogue, so kernel functions need not ask.

Sums of batch norms' gradients in an epilogue are added up in memory, for each channel and band of an
image: rows that one iteration of the kernel's parallel nest computes, all of its rows or a part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, affine
from cnnc.backend.kernels.expressions import emit_expression
from cnnc.backend.kernels.loops import halved
from cnnc.backend.kernels.site import Arguments, Site, Tensor, channel_tiles, declare
from cnnc.errors import UnsupportedError
from cnnc.ir.body import anchor_position, prologue_of, source_of
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.op import Op
from cnnc.ops.batch_sums import BatchNormSums, RowParts
from cnnc.ops.elementwise import LETTERS, Elementwise
from cnnc.ops.fused import Fused
from cnnc.ops.pool import MaxPool2d, MeanPool2d

Point = tuple[Affine, ...]
"""Logical coordinates of a vector's first element, one per axis; its lanes run along axis 1."""

Pool = MaxPool2d | MeanPool2d

WAYS = 4
"""Sums that take turns: each addition waits for the last to the same."""

Points = tuple[Point, ...]
"""What a vector holds: the elements from one point on, or those from two, half of its lanes each."""


@dataclass(frozen=True)
class Region:
    """A site's ops as one small graph, and the site's number for each of its inputs and outputs."""

    site: Site

    @cached_property
    def body(self) -> Graph:
        op = self.site.op
        if isinstance(op, Fused):
            return op.body
        inputs = tuple(Value(f"a{i}", t.type) for i, t in enumerate(self.site.operands))
        outputs = tuple(Value(f"r{i}", t.type) for i, t in enumerate(self.site.results))
        return Graph(op.name, inputs, nodes=(Node(op, inputs, outputs),), outputs=outputs)

    @cached_property
    def _position(self) -> int:
        return anchor_position(self.body)

    @property
    def _node(self) -> Node:
        return self.body.nodes[self._position]

    @property
    def anchor(self) -> Op:
        return self._node.op

    @property
    def epilogue(self) -> tuple[Node, ...]:
        return self.body.nodes[self._position + 1 :]

    @property
    def has_prologue(self) -> bool:
        return self._position > 0

    def expect_prologue(self, position: int | None) -> None:
        """Raise UnsupportedError unless there is no prologue, or it makes nothing but the anchor's operand at
        `position`."""
        if self.has_prologue and (position is None or len(self.prologue(position)) < self._position):
            raise UnsupportedError(f"{self.anchor.name} cannot make its operand: let a node do it")

    def prologue(self, position: int) -> tuple[Node, ...]:
        """What makes the anchor's operand at `position` of the site's."""
        return prologue_of(self.body, self._node.operands[position])

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of the anchor's result that one vector of the site's needs at once."""
        for node in self.epilogue:
            if isinstance(node.op, MaxPool2d | MeanPool2d):
                return node.op.kernel
        return 1, 1

    @property
    def result(self) -> Value:
        """The anchor's result, inside the body."""
        return self._node.results[0]

    @cached_property
    def bands(self) -> RowParts | None:
        """How sums in the epilogue, all alike, are cut; None if there are none."""
        ops = (node.op for node in self.epilogue)
        return next((op.cut(self.result.type) for op in ops if isinstance(op, BatchNormSums)), None)

    def expect_bands(self, fits: Callable[[int], bool]) -> None:
        """Raise UnsupportedError unless there are no sums, or bands of a number of rows that `fits`."""
        if self.bands is None:
            return
        *_, width = self.result.type.shape
        rows, rest = divmod(self.bands.part, width)
        if rest or self.result.type.rank < 4 or not fits(rows):
            raise UnsupportedError(f"{self.anchor.name} cannot add up parts of {self.bands.part} rows")

    @cached_property
    def summed(self) -> tuple[int, ...]:
        """The site's numbers of the results that are such sums."""
        sums = {v for node in self.epilogue if isinstance(node.op, BatchNormSums) for v in node.results}
        return tuple(i for i, value in enumerate(self.body.outputs) if value in sums)

    def declare(
        self, k: KernelBuilder, view: Callable[[Tensor], Sequence[int]] = attrgetter("physical")
    ) -> Arguments:
        """The buffers of the site's kernel, `view` being how it sees tensors; sums are seen as images by
        bands by channels."""
        sums, bands = [self.site.results[i] for i in self.summed], self.bands

        def seen(tensor: Tensor) -> Sequence[int]:
            if bands is not None and any(tensor is each for each in sums):
                return bands.images, bands.parts, tensor.shape[1]
            return view(tensor)

        return declare(k, self.site, seen, read_back=self.summed)

    @cached_property
    def large_maps(self) -> tuple[int, ...]:
        """The site's numbers of the operands that the epilogue loads in full and no cache holds: the large
        ones, and what sums compare with, of which the last was seen in the forward part."""
        read = {operand for node in self.epilogue for operand in node.operands}
        if self.result.type.nbytes <= self.site.target.l2_bytes:
            read = {node.operands[1] for node in self.epilogue if isinstance(node.op, BatchNormSums)}
        full = ((i, v) for i, v in enumerate(self.body.inputs) if v.type == self.result.type)
        return tuple(i for i, value in full if value in read)

    def operand(self, position: int) -> int:
        """The site's number of the anchor's operand at `position`, or of what the prologue makes it of."""
        return self.body.inputs.index(source_of(self.body, self._node.operands[position]))

    def anchor_tensor(self, position: int) -> Tensor:
        return self.site.operands[self.operand(position)]


@dataclass(frozen=True)
class Epilogue:
    """Finishes the anchor's vectors inside a kernel: `finish` may be called for any number of tiles."""

    k: KernelBuilder
    region: Region
    arguments: Arguments
    band: Affine | None = None

    def begin(self, image: Affine, channel: Affine, maps: int, lanes: int) -> None:
        """Set to zero the sums of the band in an image, if there are any, for `maps` channels from one on."""
        for number, (start, count) in itertools.product(self.region.summed, channel_tiles(maps, lanes)):
            place = image, self._band, channel + start
            self.arguments.results[number].store(place, self.k.constant(0.0, lanes), count)

    @property
    def _band(self) -> Affine:
        if self.band is None:
            raise UnsupportedError(f"{self.region.anchor.name} cannot add up sums of its result")
        return self.band

    def prefetch(self, points: Iterable[Point]) -> None:
        """Ask for what `finish` will load at `points` from maps that no cache holds."""
        for place, number in itertools.product(points, self.region.large_maps):
            tensor = self.region.site.operands[number]
            self.arguments.operands[number].prefetch(tensor.place(place))

    def finish(self, values: Mapping[Point, Vec], count: int) -> None:
        """Run the fused ops on vectors of the anchor's result and store all results.

        `values` has every vector of whole pooling windows; `count` lanes of each are valid.
        """
        self.finish_joined({(point,): vector for point, vector in values.items()}, count)

    def finish_joined(self, values: Mapping[Points, Vec], count: int) -> None:
        """The same for vectors that each hold the results of one point, or of two, joined."""
        body = self.region.body
        known: dict[Value, Mapping[Points, Vec]] = {self.region.result: values}
        loaded: dict[tuple[Value, Point], Vec] = {}
        for node in self.region.epilogue:
            if isinstance(node.op, Elementwise):
                known[node.result] = self._elementwise(node, known, loaded, count)
            elif isinstance(node.op, BatchNormSums):
                self._add_up(node, known, loaded, count)
            else:
                known[node.result] = self._pool(node, known[node.operands[0]])
        for number, value in enumerate(body.outputs):
            if number in self.region.summed:
                continue
            tensor, handle = self.region.site.results[number], self.arguments.results[number]
            for points, vector in known[value].items():
                for point, part in zip(points, self._parts(points, vector), strict=True):
                    handle.store(tensor.place(point), part, count)

    def _elementwise(
        self,
        node: Node,
        known: Mapping[Value, Mapping[Points, Vec]],
        loaded: dict[tuple[Value, Point], Vec],
        count: int,
    ) -> Mapping[Points, Vec]:
        assert isinstance(node.op, Elementwise)
        *_, latest = known.values()  # as many points as the pool has left, if there was one
        results: dict[Points, Vec] = {}
        for points, sample in latest.items():
            operands = {
                letter: self._value(o, points, sample, count, known, loaded)
                for letter, o in zip(LETTERS, node.operands, strict=False)
            }
            results[points] = emit_expression(self.k, node.op.expr, operands, sample.lanes)
        return results

    def _add_up(
        self,
        node: Node,
        known: Mapping[Value, Mapping[Points, Vec]],
        loaded: dict[tuple[Value, Point], Vec],
        count: int,
    ) -> None:
        """Add what is known of a gradient to the sums of its band."""
        dy, x, mean = node.operands
        terms: list[tuple[Vec, Vec]] = []
        for points, vector in known[dy].items():
            value, middle = (self._value(o, points, vector, count, known, loaded) for o in (x, mean))
            terms.append((vector, value - middle))
        places = next(iter(known[dy]))
        for result, total in zip(node.results, _totals(self.k, terms), strict=True):
            handle = self.arguments.results[self.region.body.outputs.index(result)]
            place = places[0][0], self._band, places[0][1]
            part = halved(self._parts(places, total))
            handle.store(place, handle.load(place, part.lanes, count) + part, count)

    def _value(
        self,
        value: Value,
        points: Points,
        sample: Vec,
        count: int,
        known: Mapping[Value, Mapping[Points, Vec]],
        loaded: dict[tuple[Value, Point], Vec],
    ) -> Vec:
        """A value for the points of a vector like `sample`: what is known, or from outside the region."""
        if value in known:
            return known[value][points]
        lanes = sample.lanes // len(points)
        parts = [self._load(value, point, lanes, count, loaded) for point in points]
        return parts[0] if len(parts) == 1 else self.k.join(parts[0], parts[1])

    def _load(
        self, value: Value, point: Point, lanes: int, count: int, loaded: dict[tuple[Value, Point], Vec]
    ) -> Vec:
        """An operand from outside the region at a point: in full, one per channel, or a scalar."""
        number = self.region.body.inputs.index(value)
        handle, tensor = self.arguments.operands[number], self.region.site.operands[number]
        rank = tensor.type.rank
        place = point if rank == len(point) else point[1:2] if rank == 1 else ()
        if (value, place) not in loaded:
            loaded[value, place] = (
                handle.load(tensor.place(place), lanes, count) if place else handle.splat((), lanes)
            )
        return loaded[value, place]

    def _pool(self, node: Node, values: Mapping[Points, Vec]) -> Mapping[Points, Vec]:
        op = node.op
        if not isinstance(op, MaxPool2d | MeanPool2d):
            raise UnsupportedError(f"{op.name} cannot be part of an epilogue")
        joined: dict[Points, Vec] = {}
        for points, vector in values.items():
            places = tuple(_window(op, point) for point in points)
            joined[places] = self._met(op, joined.get(places), vector)
        pooled: dict[Point, Vec] = {}
        for places, vector in joined.items():
            for place, part in zip(places, self._parts(places, vector), strict=True):
                pooled[place] = self._met(op, pooled.get(place), part)
        if isinstance(op, MaxPool2d):
            return {(place,): vector for place, vector in pooled.items()}
        share = 1.0 / (op.kernel[0] * op.kernel[1])
        return {(place,): vector * share for place, vector in pooled.items()}

    def _met(self, op: Pool, pooled: Vec | None, vector: Vec) -> Vec:
        """What is known of a window, and one more of its elements."""
        if pooled is None:
            return vector
        return self.k.max(pooled, vector) if isinstance(op, MaxPool2d) else pooled + vector

    def _parts(self, points: Points, vector: Vec) -> tuple[Vec, ...]:
        """The vectors of the points of a vector."""
        return (vector,) if len(points) == 1 else self.k.halves(vector)


def _totals(k: KernelBuilder, terms: Sequence[tuple[Vec, Vec]]) -> tuple[Vec, Vec]:
    """The sum of what stands first, and that of products of both."""
    sums, products = ([first for first, _ in terms[:WAYS]], [a * b for a, b in terms[:WAYS]])
    for number, (a, b) in enumerate(terms[WAYS:]):
        way = number % WAYS
        sums[way] += a
        products[way] = k.fma(a, b, products[way])
    return halved(sums), halved(products)


def _window(op: Pool, point: Point) -> Point:
    """The point of a pooling's result whose window a point is in."""
    return (*point[:2], _divided(point[2], op.kernel[0]), _divided(point[3], op.kernel[1]))


def _divided(coordinate: Affine, divisor: int) -> Affine:
    """floor(coordinate / divisor); the variables' coefficients are multiples of the divisor."""
    assert all(c % divisor == 0 for _, c in coordinate.terms), f"{coordinate} is not in windows of {divisor}"
    return Affine(coordinate.constant // divisor, tuple((v, c // divisor) for v, c in coordinate.terms))


def point(*coordinates: Affine | int) -> Point:
    return tuple(map(affine, coordinates))
