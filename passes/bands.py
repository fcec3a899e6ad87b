"""Bands: as many rows of an image, up to all, as a kernel with an epilogue computes one after the other.

Sums over its result that are computed beside it are cut into bands, so that no two threads add to the same.
Used by fusion.
"""

from __future__ import annotations

from cnnc.ir.graph import Node
from cnnc.ops.conv import Conv2dInputGrad
from cnnc.ops.pool import MeanPool2dGrad
from cnnc.ops.strassen import StrassenConv2d
from cnnc.ops.winograd import WinogradConv2d

MOST_PIXELS = 256
"""Of a band of a contraction of one tap, whose kernel joins so many into one row at most."""

DEPTHWISE_ROWS = 4
"""Of a band of a depthwise contraction at least: its kernel reads the rows beside it again."""

MOST_BANDS = 64
"""Of all images of a depthwise contraction."""

LEAST_MAPS = 512
"""Of all images of Strassen's products, at least: a band is an image, and an iteration computes one for some
of its maps, so that fewer would leave threads without work."""


def band_rows(node: Node) -> int | None:
    """Rows of a band of a node's result; None if its kernel adds up nothing."""
    op = node.op
    if not isinstance(op, WinogradConv2d | StrassenConv2d | Conv2dInputGrad | MeanPool2dGrad):
        return None
    images, channels, height, width = node.result.type.shape
    if isinstance(op, MeanPool2dGrad):
        covers = op.kernel == op.stride and not (any(op.pad) or height % op.kernel[0] or width % op.kernel[1])
        return op.kernel[0] if covers else None
    if isinstance(op, StrassenConv2d):
        return height if images * channels >= LEAST_MAPS else None
    if isinstance(op, WinogradConv2d):
        return min(op.tile[0], height)
    if op.groups == 1 and op.is_pointwise(node.operands[1].type.shape):
        rows = (h for h in range(height, 0, -1) if height % h == 0 and h * width <= MOST_PIXELS)
        return next(rows, 1)
    if op.groups > 1 and op.groups == channels == node.operands[1].type.shape[0]:
        each = -(-height * images // MOST_BANDS)
        return min(-(-max(each, DEPTHWISE_ROWS) // op.stride[0]) * op.stride[0], height)
    return None
