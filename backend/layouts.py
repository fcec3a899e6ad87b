"""Which layouts kernels read and write: the rule book passes/assign_layouts.py is given.

Activations are channels-last, for the lanes run along channels. Weights are packed in blocks of maps as
wide as the register tile of the contraction that reads them; the block is computed here, once, and a
kernel reads it off the layout.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from cnnc.backend.kernels.contraction import Contraction, forward, input_grad, tile_field
from cnnc.backend.kernels.dense import dense_vectors
from cnnc.backend.kernels.strassen_blocks import halves_block
from cnnc.backend.kernels.tiles import LONG_ROW, Field, block_for
from cnnc.backend.target import Target
from cnnc.ir.body import anchor_position, source_of
from cnnc.ir.graph import Node, Value
from cnnc.ir.layout import CHANNELS_LAST, Layout, row_major
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType
from cnnc.ops.batch_sums import BatchMoments, BatchNormSums
from cnnc.ops.concat import Concat, Slice
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.dense import Dense, DenseInputGrad, DenseWeightGrad
from cnnc.ops.dropout import DropoutMask
from cnnc.ops.elementwise import Elementwise
from cnnc.ops.fused import Fused
from cnnc.ops.norm import ScaleMaps
from cnnc.ops.partial import Partial, SumParts
from cnnc.ops.pool import MaxPool2d, MaxPool2dGrad, MeanPool2d, MeanPool2dGrad
from cnnc.ops.position_bias import PositionBias
from cnnc.ops.reduce import Broadcast, Sum
from cnnc.ops.shape import Crop2d, Dilate2d, Pad2d, Relayout
from cnnc.ops.softmax import LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad
from cnnc.ops.space_to_depth import DepthToSpace, SpaceToDepth
from cnnc.ops.strassen import StrassenConv2d, StrassenWeightGrad, StrassenWeights
from cnnc.ops.winograd import InlineWinogradConv2d, WinogradConv2d, WinogradWeightGrad, WinogradWeights
from cnnc.passes.assign_layouts import LayoutRule, Tensors, first_full

MAPS_LAST = Layout("bcda")
"""Of depthwise weights: lanes run along the maps, as along the channels they belong to."""

CHANNEL_OPS = (
    MaxPool2d, MaxPool2dGrad, MeanPool2d, MeanPool2dGrad, Softmax, SoftmaxGrad, Pad2d, Crop2d, Dilate2d,
    Concat, Slice, LogSoftmax, LogSoftmaxGrad, DropoutMask, BatchMoments, BatchNormSums,
)  # fmt: skip

ROW_OPS = (
    Elementwise, Conv2d, Conv2dInputGrad, Conv2dWeightGrad, WinogradConv2d, WinogradWeightGrad,
    StrassenConv2d, StrassenWeightGrad, MaxPool2d, MaxPool2dGrad, MeanPool2d, MeanPool2dGrad, Softmax,
    SoftmaxGrad, LogSoftmax, LogSoftmaxGrad, Pad2d, Crop2d, Dilate2d, Concat, Slice, Relayout, Broadcast,
    BatchMoments, BatchNormSums,
)  # fmt: skip
"""Ops whose kernels see maps by rows of channels, never as a stretch of memory."""

WEIGHT_GRADS = Conv2dWeightGrad | DenseWeightGrad | WinogradWeightGrad | StrassenWeightGrad
"""Ops that make the gradient of a weight, which lies as the weight does."""

POSITIONS = Layout("bca")
"""Of a bias [C,H,W]: as the channels of an image lie."""


@dataclass(frozen=True)
class LayoutRules:
    """The rule book of a target."""

    target: Target

    def __call__(self, op: Op, tensors: Tensors) -> LayoutRule:
        """The layouts a node's kernel wants."""
        if isinstance(op, Fused):
            return self._region(op, tensors)
        if isinstance(op, Elementwise):
            return _elementwise(tensors)
        if isinstance(op, Relayout):
            return LayoutRule((Layout(op.source),), (Layout(op.target),))
        if isinstance(op, Conv2d | Conv2dInputGrad | Conv2dWeightGrad):
            return self._convolution(op, tensors)
        if isinstance(op, WinogradWeights | WinogradConv2d | WinogradWeightGrad):
            return self._winograd(op, tensors)
        if isinstance(op, StrassenWeights | StrassenConv2d | StrassenWeightGrad):
            return self._strassen(op, tensors)
        if isinstance(op, Dense | DenseInputGrad | DenseWeightGrad):
            return self._dense(op, tensors)
        if isinstance(op, Sum):
            operands = tuple(map(channels_last, tensors.operands))
            return LayoutRule(operands, tuple(row_major(r.rank) for r in tensors.results))
        if isinstance(op, SumParts):
            layout = tensors.layouts[0] or row_major(tensors.operands[0].rank)
            return LayoutRule((layout,), (_without_first_axis(layout),))
        if isinstance(op, ScaleMaps):
            layout = tensors.layouts[0] or row_major(tensors.operands[0].rank)
            return LayoutRule((layout, row_major(1)), (layout,))
        if isinstance(op, SpaceToDepth | DepthToSpace):
            return self._blocks(tensors)
        if isinstance(op, Concat) and op.axis == 0 and tensors.results[0].rank == 4:
            weights = self.packed("bcda", 1, tensors.results[0].shape[1])  # of input gradients
            return LayoutRule((weights,) * len(tensors.operands), (weights,))
        if isinstance(op, PositionBias):
            return LayoutRule((CHANNELS_LAST, POSITIONS), (CHANNELS_LAST,))
        wanted = channels_last if isinstance(op, CHANNEL_OPS) else _plain
        return LayoutRule(tuple(map(wanted, tensors.operands)), tuple(map(wanted, tensors.results)))

    def takes_parts(self, node: Node, value: Value) -> bool:
        """Whether a node's kernel keeps the rows of an operand or result apart, so that it may lie inside
        wider maps; weights may not."""
        op = node.op
        if isinstance(op, Fused):
            inside = {**dict(zip(node.operands, op.body.inputs, strict=True))}
            inside.update(zip(node.results, op.body.outputs, strict=True))
            return all(self.takes_parts(each, inside[value]) for each in op.body.nodes)
        has_rows = isinstance(op, ROW_OPS) or (isinstance(op, Sum) and op.axes == (0, 2, 3))
        return has_rows and value not in _weights(node)

    def _region(self, op: Fused, tensors: Tensors) -> LayoutRule:
        """What the anchor wants, and the prologue, which reads vectors of channels; what the epilogue reads
        in full lies as the results do."""
        body = op.body
        if all(isinstance(node.op, Elementwise) for node in body.nodes):
            return _elementwise(tensors)
        sources = [source_of(body, o) for o in op.anchor.operands]
        numbers = [body.inputs.index(source) for source in sources]
        anchor = Tensors(
            tuple(tensors.operands[i] for i in numbers),
            tuple(tensors.layouts[i] for i in numbers),
            tuple(v.type for v in op.anchor.results),
        )
        rule, shape = self(op.anchor.op, anchor), anchor.results[0].shape
        lying = rule.results[0]
        if isinstance(op.anchor.op, WEIGHT_GRADS):
            lying = _given_packing(lying, tensors, shape)

        def outside(type: TensorType) -> Layout:
            return lying if type.shape == shape else channels_last(type)

        operands: list[Layout | None] = [outside(t) for t in tensors.operands]
        position = anchor_position(body)
        for number, layout, given in zip(numbers, rule.operands, op.anchor.operands, strict=True):
            read_by_epilogue = body.users[body.inputs[number]][-1] > position
            made = channels_last(given.type) if given in body.producer else None
            operands[number] = made or layout or (operands[number] if read_by_epilogue else None)
        return LayoutRule(tuple(operands), tuple(map(outside, tensors.results)))

    def _convolution(self, op: Conv2d | Conv2dInputGrad | Conv2dWeightGrad, tensors: Tensors) -> LayoutRule:
        """A depthwise convolution reads vectors of channels of its source, any other one single elements."""
        shape = _contraction(op, tensors)
        if isinstance(op, Conv2dWeightGrad):
            return LayoutRule((CHANNELS_LAST, CHANNELS_LAST), (_of_parts(op, self._weights(shape)),))
        source = CHANNELS_LAST if shape.is_depthwise else _broadcast_source(tensors)
        return LayoutRule((source, self._weights(shape)), (CHANNELS_LAST,))

    def _weights(self, shape: Contraction) -> Layout:
        """Those of a convolution, or of its input gradient: in blocks of maps, or with all maps together."""
        if shape.is_depthwise:
            return MAPS_LAST
        if not shape.flipped:
            return self.blocked("acdb", 0, shape.maps * shape.groups, shape.groups, tile_field(shape))
        weights = self.blocked("bcda", 1, shape.maps, 1, tile_field(shape))
        return weights if weights.block > 1 else CHANNELS_LAST  # a single map needs no packing

    def _winograd(
        self, op: WinogradWeights | WinogradConv2d | WinogradWeightGrad, tensors: Tensors
    ) -> LayoutRule:
        """Weights in blocks of maps that suit long rows of tiles, whatever the size of the layer."""
        if isinstance(op, WinogradConv2d):
            is_inline, second = isinstance(op, InlineWinogradConv2d), tensors.operands[1]
            weights = self._given(second) if is_inline else self._transformed(second)
            return LayoutRule((CHANNELS_LAST, weights), (CHANNELS_LAST,))
        if isinstance(op, WinogradWeightGrad):
            weights = self._given(tensors.results[0])
            return LayoutRule((CHANNELS_LAST, CHANNELS_LAST), (_of_parts(op, weights),))
        return LayoutRule((self._given(tensors.operands[0]),), (self._transformed(tensors.results[0]),))

    def _blocks(self, tensors: Tensors) -> LayoutRule:
        """Weights, in blocks of maps, stay as they are; maps become channels-last."""
        given = tensors.layouts[0] or self._given(tensors.operands[0])
        if given.blocked_axis == 0:
            return LayoutRule((given,), (given,))
        return LayoutRule((given if given.block == 1 else CHANNELS_LAST,), (CHANNELS_LAST,))

    def _given(self, w: TensorType) -> Layout:
        """Of w [O,I,Kh,Kw] to be transformed, or its gradient; partial gradients have an axis more."""
        return self.packed("acdb", 0, w.shape[-4])

    def _transformed(self, u: TensorType) -> Layout:
        """Of u [P,C,K] for Winograd convolutions."""
        return self.packed("cab", 2, u.shape[2])

    def _strassen(
        self, op: StrassenWeights | StrassenConv2d | StrassenWeightGrad, tensors: Tensors
    ) -> LayoutRule:
        """Halves of weights in blocks that divide them, and whole weights in the same blocks."""
        if isinstance(op, StrassenWeightGrad):
            weights = _in_blocks("acdb", "a", halves_block(self.target, tensors.operands[0].shape[1] // 2))
            return LayoutRule((CHANNELS_LAST, CHANNELS_LAST), (_of_parts(op, weights),))
        u = tensors.results[0] if isinstance(op, StrassenWeights) else tensors.operands[1]
        block = halves_block(self.target, u.shape[2])
        halves = _in_blocks("cab", "c", block)
        if not isinstance(op, StrassenWeights):
            return LayoutRule((CHANNELS_LAST, halves), (CHANNELS_LAST,))
        given = _in_blocks("bcda", "b", block) if op.flipped else _in_blocks("acdb", "a", block)
        return LayoutRule((given,), (halves,))

    def _dense(self, op: Dense | DenseInputGrad | DenseWeightGrad, tensors: Tensors) -> LayoutRule:
        """The weights' inner axes lie in the order in which x has them."""
        if isinstance(op, DenseInputGrad):
            return self._dense_input_grad(tensors)
        x = tensors.operands[0 if isinstance(op, Dense) else 1]
        w = tensors.operands[1] if isinstance(op, Dense) else tensors.results[0]
        weights = self._dense_weights(w, x.shape[0])
        if isinstance(op, Dense):
            return LayoutRule((channels_last(x), weights), (row_major(2),))
        return LayoutRule((row_major(2), channels_last(x)), (weights,))

    def _dense_input_grad(self, tensors: Tensors) -> LayoutRule:
        """Weights in blocks of maps of whatever size, or not packed at all."""
        dy, w = tensors.operands
        weights, dx = self._dense_weights(w, dy.shape[0]), channels_last(tensors.results[0])
        given = tensors.layouts[1] or weights
        if given.order.lower() == weights.order.lower() and given.blocked_axis in (0, None):
            weights = given
        return LayoutRule((row_major(2), weights), (dx,))

    def _dense_weights(self, w: TensorType, rows: int) -> Layout:
        """Of a dense layer for `rows` rows: blocks of maps that suit dense.py."""
        lanes = self.target.lanes
        while lanes > 1 and lanes // 2 >= w.shape[0]:
            lanes //= 2
        block = lanes * dense_vectors(self.target, rows, -(-w.shape[0] // lanes))
        order = channels_last(w).order
        return Layout(f"{order.replace('a', 'A')}{block}a") if block > 1 else Layout(order)

    def packed(self, order: str, axis: int, maps: int) -> Layout:
        """As `blocked`, for long rows of pixels."""
        return self.blocked(order, axis, maps, 1, LONG_ROW)

    def blocked(self, order: str, axis: int, maps: int, groups: int, field: Field) -> Layout:
        """`order` with the axis of the maps, which is its first, cut into blocks of a register tile."""
        block, letter = block_for(self.target, field, maps, groups), string.ascii_lowercase[axis]
        return _in_blocks(order, letter, block)


def _in_blocks(order: str, letter: str, block: int) -> Layout:
    """`order` with the axis `letter` cut into blocks."""
    return Layout(order.replace(letter, letter.upper()) + f"{block}{letter}") if block > 1 else Layout(order)


def _weights(node: Node) -> tuple[Value, ...]:
    """The weights that a contraction reads or makes."""
    if isinstance(node.op, Conv2d | Conv2dInputGrad | WinogradConv2d | StrassenConv2d):
        return node.operands[1:]
    return node.results if isinstance(node.op, WEIGHT_GRADS) else ()


def _contraction(op: Conv2d | Conv2dInputGrad | Conv2dWeightGrad, tensors: Tensors) -> Contraction:
    """The geometry of a convolution or an input gradient; for a weight gradient that of its convolution."""
    (first, second), (result,) = tensors.operands, tensors.results
    if isinstance(op, Conv2d):
        return forward(op, first, second, result)
    if isinstance(op, Conv2dInputGrad):
        return input_grad(op, first, second, result)
    w = TensorType(result.dtype, result.shape[-4:])  # partial gradients have an axis more
    return forward(Conv2d(op.stride, op.pad, op.dilation, op.groups), second, w, first)


def _given_packing(weights: Layout, tensors: Tensors, shape: tuple[int, ...]) -> Layout:
    """The layout that weights have already, if it is the one wanted but for the size of its blocks."""
    given = first_full(tensors.operands, tensors.layouts, shape)
    alike = given.order == weights.order and given.blocked_axis == weights.blocked_axis
    return given if alike else weights


def _of_parts(op: Op, layout: Layout) -> Layout:
    """That of a weight gradient; behind one more axis if it is partial."""
    if not isinstance(op, Partial):
        return layout
    return Layout("a" + "".join(chr(ord(c) + 1) if c.isalpha() else c for c in layout.tag))


def _without_first_axis(layout: Layout) -> Layout:
    """The layout of what lies behind the first axis; row-major if that is not outermost."""
    if not layout.order.startswith("a"):
        return row_major(len(layout.axes) - 1)
    return Layout("".join(chr(ord(c) - 1) if c.isalpha() else c for c in layout.tag[1:]))


def channels_last(type: TensorType) -> Layout:
    """N,H,W,C for maps, row-major for all else."""
    return CHANNELS_LAST if type.rank == 4 else row_major(type.rank)


def _plain(type: TensorType) -> Layout:
    return row_major(type.rank)


def _broadcast_source(tensors: Tensors) -> Layout | None:
    """A source is read element by element: any layout without blocks will do."""
    given = tensors.layouts[0]
    return None if given is not None and given.block == 1 else CHANNELS_LAST


def _elementwise(tensors: Tensors) -> LayoutRule:
    """All full operands like the first whose layout is decided; the rest is row-major."""
    shape = tensors.results[0].shape
    layout = first_full(tensors.operands, tensors.layouts, shape)
    operands = tuple(layout if t.shape == shape else row_major(t.rank) for t in tensors.operands)
    return LayoutRule(operands, (layout,) * len(tensors.results))
