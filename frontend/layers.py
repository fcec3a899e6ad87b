"""The layers: free functions from tensors to a tensor. Each infers its shape at once.

Everything is checked before anything is recorded, so a call that fails leaves the network as it was.
"""

from __future__ import annotations

import zlib

from cnnc.errors import CnncError, ShapeError
from cnnc.frontend.activations import Activation
from cnnc.frontend.arguments import Padding, Size, finite, flag, padding, pair, transposed_padding, whole
from cnnc.frontend.calls import user_call
from cnnc.frontend.initializers import Initializer, zeros
from cnnc.frontend.recording import check_network, checked, record, shown
from cnnc.frontend.tensor import Tensor
from cnnc.ir.op import Op
from cnnc.ir.types import f32
from cnnc.ops.concat import Concat
from cnnc.ops.conv import Conv2d, Conv2dInputGrad
from cnnc.ops.dense import Dense
from cnnc.ops.dropout import Dropout
from cnnc.ops.elementwise import Add, Bias
from cnnc.ops.position_bias import PositionBias
from cnnc.ops.shape import Flatten


@user_call
def conv2d(
    x: Tensor,
    maps: int,
    kernel: Size,
    stride: Size = 1,
    pad: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    bias: bool = True,
    activation: Activation | None = None,
    init: Initializer | None = None,
    name: str | None = None,
) -> Tensor:
    """Convolution of [N,C,H,W] to [N,maps,H',W'] with a weight [maps,C/groups,Kh,Kw] and a bias [maps].

    Sizes are one number or (vertical, horizontal); `pad` may also be (top, left, bottom, right), or "same"
    for ceil(H / stride) rows (see `padding`).
    """
    channels = checked(x, 4).shape[1]
    taps, step, spread = pair("kernel", kernel, 1), pair("stride", stride, 1), pair("dilation", dilation, 1)
    maps, groups = whole("maps", maps, 1), whole("groups", groups, 1)
    _check_groups(groups, channels, maps)
    op = Conv2d(step, padding(pad, taps, spread, step, x.shape[2:]), spread, groups)
    return _weighted(x, op, (maps, channels // groups, *taps), maps, bias, activation, init, name)


@user_call
def conv_transpose2d(
    x: Tensor,
    maps: int,
    kernel: Size,
    stride: Size = 1,
    pad: Padding = 0,
    output_pad: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    bias: bool = True,
    activation: Activation | None = None,
    init: Initializer | None = None,
    name: str | None = None,
) -> Tensor:
    """Transposed convolution of [N,C,H,W] to [N,maps,H',W'], the adjoint of a conv2d with these sizes.

    The weight is [C,maps/groups,Kh,Kw], the bias [maps]. H' = (H - 1) * stride - top - bottom +
    dilation * (Kh - 1) + 1 + output_pad; with pad "same" it is H * stride (see `transposed_padding`).
    """
    channels = checked(x, 4).shape[1]
    taps, step, spread = pair("kernel", kernel, 1), pair("stride", stride, 1), pair("dilation", dilation, 1)
    maps, groups = whole("maps", maps, 1), whole("groups", groups, 1)
    _check_groups(groups, channels, maps)
    extra = pair("output_pad", output_pad, 0)
    if any(e >= s for e, s in zip(extra, step, strict=True)):
        raise ShapeError(f"output_pad {extra} must be smaller than the stride {step}")
    pads = transposed_padding(pad, taps, spread, step, extra)
    axes = enumerate(zip(x.shape[2:], step, spread, taps, extra, strict=True))
    height, width = ((n - 1) * s - pads[i] - pads[i + 2] + d * (k - 1) + 1 + e for i, (n, s, d, k, e) in axes)
    if min(height, width) < 1:
        raise ShapeError(f"the padding {pads} leaves nothing of the result: {height}x{width}")
    op = Conv2dInputGrad(step, pads, spread, groups, size=(height, width))
    shape = (channels, maps // groups, *taps)
    return _weighted(x, op, shape, maps, bias, activation, init, name, kind="conv_transpose2d")


@user_call
def dense(
    x: Tensor,
    units: int,
    bias: bool = True,
    activation: Activation | None = None,
    init: Initializer | None = None,
    name: str | None = None,
) -> Tensor:
    """Fully connected: [N,features] to [N,units], with a weight [units,features] and a bias [units]."""
    features = checked(x, 2).shape[1]
    shape = (whole("units", units, 1), features)
    return _weighted(x, Dense(), shape, shape[0], bias, activation, init, name)


@user_call
def position_bias(x: Tensor, init: Initializer = zeros, name: str | None = None) -> Tensor:
    """Adds a bias [C,H,W], one value per channel and position, to [N,C,H,W]."""
    shape = checked(x, 4).shape[1:]
    if not callable(init):
        raise CnncError(f"init must be an initializer such as zeros or glorot, not {init!r}")
    layer = x.network.layer("position_bias", name)
    return Tensor(layer.emit(PositionBias(), x.value, layer.param("bias", shape, init)), x.network)


@user_call
def dropout(x: Tensor, rate: float = 0.5, name: str | None = None) -> Tensor:
    """In training, zeros a share `rate` of the elements, others in each step, and divides the rest by
    1 - rate; in inference, x itself. Which ones follows from the network's seed and the layer's name."""
    share = finite("rate", rate)
    if not 0 <= share < 1:
        raise CnncError(f"rate must be at least 0 and below 1, not {rate!r}")
    layer = checked(x).network.layer("dropout", name)
    seed = zlib.crc32(f"{x.network.seed} {layer.name}".encode())
    return Tensor(layer.emit(Dropout(share, seed), x.value), x.network)


@user_call
def flatten(x: Tensor, name: str | None = None) -> Tensor:
    """[N,C,H,W] to [N,C*H*W]."""
    return record("flatten", name, Flatten(), x)


@user_call
def add(x: Tensor, y: Tensor, name: str | None = None) -> Tensor:
    """The elementwise sum of two tensors of one shape: a skip connection."""
    check_network(x, y)
    if x.shape != y.shape:
        raise ShapeError(f"the operands have shapes {shown(x)} and {shown(y)}; they must be equal")
    return record("add", name, Add(), x, y)


@user_call
def concat(*tensors: Tensor, name: str | None = None) -> Tensor:
    """Two tensors or more, equal but in their channels (or features): those of all, in their order."""
    if len(tensors) < 2:
        raise CnncError(f"give two tensors or more; got {len(tensors)}")
    check_network(*tensors)
    for x in tensors[1:]:
        if len(x.shape) != len(tensors[0].shape) or x.shape[2:] != tensors[0].shape[2:]:
            both = f"{shown(tensors[0])} and {shown(x)}"
            raise ShapeError(f"the operands have shapes {both}; only channels may differ")
    return record("concat", name, Concat(), *tensors)


def _check_groups(groups: int, channels: int, maps: int) -> None:
    if channels % groups or maps % groups:
        raise ShapeError(f"groups={groups} must divide the input's {channels} channels and the {maps} maps")


def _weighted(
    x: Tensor,
    op: Op,
    shape: tuple[int, ...],
    maps: int,
    bias: bool,
    activation: Activation | None,
    init: Initializer | None,
    name: str | None,
    kind: str = "",
) -> Tensor:
    """Record `op(x, weight)` with what follows it: a bias for each of the maps, an activation. `kind` begins
    the layer's name unless it has one; it is the op's name unless given."""
    if activation is not None and not isinstance(activation, Activation):
        raise CnncError(f"activation must be one such as relu or None, not {activation!r}")
    if init is not None and not callable(init):
        raise CnncError(f"init must be an initializer such as he or glorot, not {init!r}")
    has_bias = flag("bias", bias)
    op.infer(x.value.type, f32(*shape))
    layer = x.network.layer(kind or op.name, name)
    y = layer.emit(op, x.value, layer.param("weight", shape, init or x.network.init))
    if has_bias:
        y = layer.emit(Bias(), y, layer.param("bias", (maps,), zeros))
    if activation is not None:
        y = layer.emit(activation.op, y)
    return Tensor(y, x.network)
