"""Which values of a graph hold one image in each place of axis 0, and which ops keep the images apart.

Inference computes any number of images up to the batch it is compiled for, so that what it computes for one
must not depend on another. backend/lower.py asks here, and tells the writers of kernels (kernels/site.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from cnnc.errors import UnsupportedError
from cnnc.ir.graph import Graph, Node, Value
from cnnc.ir.layout import Layout
from cnnc.ir.op import Op
from cnnc.ops.concat import Concat, Slice
from cnnc.ops.conv import Conv2d, Conv2dInputGrad
from cnnc.ops.dense import Dense, DenseInputGrad
from cnnc.ops.elementwise import Elementwise
from cnnc.ops.fused import Fused
from cnnc.ops.pool import MaxPool2d, MaxPool2dGrad, MeanPool2d, MeanPool2dGrad
from cnnc.ops.position_bias import PositionBias
from cnnc.ops.reduce import Broadcast, Sum
from cnnc.ops.shape import Crop2d, Dilate2d, Flatten, Pad2d, Relayout, Reshape
from cnnc.ops.softmax import LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad
from cnnc.ops.space_to_depth import DepthToSpace, SpaceToDepth
from cnnc.ops.strassen import StrassenConv2d
from cnnc.ops.winograd import WinogradConv2d

ANY = 2**31
"""More operands than an op has."""

IMAGE_OPERANDS: Mapping[type[Op], int] = MappingProxyType(
    {
        Conv2d: 1,
        Conv2dInputGrad: 1,
        WinogradConv2d: 1,
        StrassenConv2d: 1,
        Dense: 1,
        DenseInputGrad: 1,
        PositionBias: 1,
        Elementwise: ANY,
        MaxPool2d: 1,
        MaxPool2dGrad: ANY,
        MeanPool2d: 1,
        MeanPool2dGrad: 1,
        Softmax: 1,
        SoftmaxGrad: ANY,
        LogSoftmax: 1,
        LogSoftmaxGrad: ANY,
        Sum: 1,
        Broadcast: 1,
        Relayout: 1,
        Flatten: 1,
        Reshape: 1,
        Pad2d: 1,
        Crop2d: 1,
        Dilate2d: 1,
        SpaceToDepth: 1,
        DepthToSpace: 1,
        Concat: ANY,
        Slice: 1,
    }
)
"""How many of an op's operands, the first ones, may hold images: then image i of its results depends on image
i of those alone. An op or one of its bases must be here for it to be part of inference."""


def image_values(graph: Graph, batch: int) -> frozenset[Value]:
    """The values that hold `batch` images: the inputs and all that depends on them.

    Raises UnsupportedError at a node that mixes images or loses their axis, and for an output without images.
    """
    found = set(graph.inputs)
    for node in graph.nodes:
        if not found.isdisjoint(node.operands):
            _check(node, found, batch)
            found.update(node.results)
    for value in graph.outputs:
        if value not in found:
            raise UnsupportedError(f"the output {value.name} does not depend on the images")
    return frozenset(found)


def _check(node: Node, found: Collection[Value], batch: int) -> None:
    holding = [operand in found for operand in node.operands]
    shapes = [value.type.shape[:1] for value in node.results]
    if any(shape != (batch,) for shape in shapes) or not _keeps_apart(node, holding):
        raise UnsupportedError(
            f"{node.op.name}: not known to keep images apart; inference computes each by itself", node.loc
        )


def _keeps_apart(node: Node, holding: Sequence[bool]) -> bool:
    """Whether the results hold one image in each place of axis 0 as the operands do."""
    op = node.op
    if isinstance(op, Fused):
        return _region_keeps_apart(op.body, holding)
    most = next((IMAGE_OPERANDS[kind] for kind in type(op).__mro__ if kind in IMAGE_OPERANDS), 0)
    if any(holding[most:]):
        return False
    if isinstance(op, Sum | Broadcast):
        return 0 not in op.axes
    if isinstance(op, Concat | Slice):
        return op.axis != 0 and all(holding)
    if isinstance(op, Relayout):
        return all(images_lie_apart(Layout(tag)) for tag in (op.source, op.target))
    if isinstance(op, Elementwise):  # an operand of lower rank goes along the channels
        rank = node.result.type.rank
        return all(o.type.rank == rank for o, has in zip(node.operands, holding, strict=True) if has)
    return True


def images_lie_apart(layout: Layout) -> bool:
    """Whether a value's images lie in memory one behind the other."""
    return layout.axes[0] == 0 and layout.blocked_axis != 0


def _region_keeps_apart(body: Graph, holding: Sequence[bool]) -> bool:
    found = {value for value, has in zip(body.inputs, holding, strict=True) if has}
    for node in body.nodes:
        inner = [operand in found for operand in node.operands]
        if any(inner):
            if not _keeps_apart(node, inner):
                return False
            found.update(node.results)
    return True
