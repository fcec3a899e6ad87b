"""The layers: free functions from tensors to a tensor. Each infers its shape at once.

Everything is checked before anything is recorded, so a call that fails leaves the network as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cnnc.errors import CnncError, ShapeError
from cnnc.frontend.arguments import Padding, Size, flag, layer_name, padding, pair, whole
from cnnc.frontend.calls import user_call
from cnnc.frontend.initializers import Initializer, zeros
from cnnc.frontend.tensor import Tensor
from cnnc.ir.op import Op
from cnnc.ir.types import f32
from cnnc.ops.concat import Concat
from cnnc.ops.conv import Conv2d
from cnnc.ops.dense import Dense
from cnnc.ops.elementwise import Add, Bias, Relu, Sigmoid, Tanh
from cnnc.ops.elementwise import activation as activation_op
from cnnc.ops.pool import MaxPool2d, MeanPool2d
from cnnc.ops.scalar import Expr
from cnnc.ops.shape import Flatten
from cnnc.ops.softmax import Softmax


@dataclass(frozen=True)
class Activation:
    """A layer without parameters: called on a tensor, or given to a layer as `activation=`."""

    name: str
    op: Op

    @user_call
    def __call__(self, x: Tensor, name: str | None = None) -> Tensor:
        return _record(self.name, name, self.op, x)


relu = Activation("relu", Relu())
tanh = Activation("tanh", Tanh())
sigmoid = Activation("sigmoid", Sigmoid())
softmax = Activation("softmax", Softmax())


@user_call
def activation(name: str, function: str | Callable[[Expr], Expr]) -> Activation:
    """Declare an activation by a formula of one variable: `activation("swish", "a * sigmoid(a)")`.

    A Python function such as `lambda a: a * sigmoid(a)`, with the functions of cnnc.ops.scalar,
    serves too. The derivative is derived from it.
    """
    op = activation_op(function)
    if op.arity != 1:
        raise CnncError(f"the formula {op.f!r} has {op.arity} variables; an activation has one")
    return Activation(layer_name(name), op)


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

    Sizes are one number or (vertical, horizontal); `pad` may also be (top, left, bottom, right) or "same".
    """
    channels = _checked(x, 4).shape[1]
    taps, step, spread = pair("kernel", kernel, 1), pair("stride", stride, 1), pair("dilation", dilation, 1)
    maps, groups = whole("maps", maps, 1), whole("groups", groups, 1)
    if channels % groups or maps % groups:
        raise ShapeError(f"groups={groups} must divide the input's {channels} channels and the {maps} maps")
    op = Conv2d(step, padding(pad, taps, spread), spread, groups)
    return _weighted(x, op, (maps, channels // groups, *taps), bias, activation, init, name)


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
    features = _checked(x, 2).shape[1]
    shape = (whole("units", units, 1), features)
    return _weighted(x, Dense(), shape, bias, activation, init, name)


@user_call
def max_pool(
    x: Tensor, kernel: Size, stride: Size | None = None, pad: Padding = 0, name: str | None = None
) -> Tensor:
    """The largest of each window of [N,C,H,W]; the stride is the kernel unless given, padding never wins."""
    return _record("max_pool", name, MaxPool2d(*_window(kernel, stride, pad)), _checked(x, 4))


@user_call
def mean_pool(
    x: Tensor, kernel: Size, stride: Size | None = None, pad: Padding = 0, name: str | None = None
) -> Tensor:
    """The mean of each window of [N,C,H,W]; the stride is the kernel unless given, padding counts as 0."""
    return _record("mean_pool", name, MeanPool2d(*_window(kernel, stride, pad)), _checked(x, 4))


@user_call
def flatten(x: Tensor, name: str | None = None) -> Tensor:
    """[N,C,H,W] to [N,C*H*W]."""
    return _record("flatten", name, Flatten(), x)


@user_call
def add(x: Tensor, y: Tensor, name: str | None = None) -> Tensor:
    """The elementwise sum of two tensors of one shape: a skip connection."""
    _check_network(x, y)
    if x.shape != y.shape:
        raise ShapeError(f"the operands have shapes {_shown(x)} and {_shown(y)}; they must be equal")
    return _record("add", name, Add(), x, y)


@user_call
def concat(*tensors: Tensor, name: str | None = None) -> Tensor:
    """Two tensors or more, equal but in their channels (or features): those of all, in their order."""
    if len(tensors) < 2:
        raise CnncError(f"give two tensors or more; got {len(tensors)}")
    _check_network(*tensors)
    for x in tensors[1:]:
        if len(x.shape) != len(tensors[0].shape) or x.shape[2:] != tensors[0].shape[2:]:
            both = f"{_shown(tensors[0])} and {_shown(x)}"
            raise ShapeError(f"the operands have shapes {both}; only channels may differ")
    return _record("concat", name, Concat(), *tensors)


def _weighted(
    x: Tensor,
    op: Op,
    shape: tuple[int, ...],
    bias: bool,
    activation: Activation | None,
    init: Initializer | None,
    name: str | None,
) -> Tensor:
    """Record `op(x, weight)` with what follows it: a bias per output channel, an activation."""
    if activation is not None and not isinstance(activation, Activation):
        raise CnncError(f"activation must be one such as relu or None, not {activation!r}")
    if init is not None and not callable(init):
        raise CnncError(f"init must be an initializer such as he or glorot, not {init!r}")
    has_bias = flag("bias", bias)
    op.infer(x.value.type, f32(*shape))
    layer = x.network.layer(op.name, name)
    y = layer.emit(op, x.value, layer.param("weight", shape, init or x.network.init))
    if has_bias:
        y = layer.emit(Bias(), y, layer.param("bias", shape[:1], zeros))
    if activation is not None:
        y = layer.emit(activation.op, y)
    return Tensor(y, x.network)


def _record(kind: str, name: str | None, op: Op, *operands: Tensor) -> Tensor:
    """Record a layer of one op without parameters."""
    values = [_checked(x).value for x in operands]
    op.infer(*(v.type for v in values))
    network = operands[0].network
    return Tensor(network.layer(kind, name).emit(op, *values), network)


def _window(
    kernel: Size, stride: Size | None, pad: Padding
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    """Kernel, stride and padding of a pooling window."""
    taps = pair("kernel", kernel, 1)
    step = taps if stride is None else pair("stride", stride, 1)
    return taps, step, padding(pad, taps, (1, 1))


def _checked(x: Tensor, rank: int | None = None) -> Tensor:
    """`x`, which must be a tensor, of that rank if one is given."""
    if not isinstance(x, Tensor):
        raise CnncError(f"the input must be a tensor (what a layer or net.input returns), not {x!r}")
    if rank is None or len(x.shape) == rank:
        return x
    if rank == 2:
        raise ShapeError(f"input has shape {_shown(x)}; flatten it first")
    raise ShapeError(f"input has shape {_shown(x)}; maps [N,C,H,W] are needed")


def _check_network(first: Tensor, *others: Tensor) -> None:
    for other in others:
        if _checked(first).network is not _checked(other).network:
            names = f"{first.network.name!r} and {other.network.name!r}"
            raise CnncError(f"the operands belong to different networks, {names}")


def _shown(x: Tensor) -> str:
    return f"[{','.join(map(str, x.shape))}]"
