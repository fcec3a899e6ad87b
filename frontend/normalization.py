"""Batch normalization as a layer."""

from __future__ import annotations

from cnnc.errors import CnncError, ShapeError
from cnnc.frontend.activations import Activation
from cnnc.frontend.arguments import finite
from cnnc.frontend.calls import user_call
from cnnc.frontend.initializers import ones, zeros
from cnnc.frontend.recording import checked, shown
from cnnc.frontend.tensor import Tensor
from cnnc.ops.norm import BatchNorm


@user_call
def batch_norm(
    x: Tensor,
    eps: float = 1e-5,
    momentum: float = 0.1,
    activation: Activation | None = None,
    name: str | None = None,
) -> Tensor:
    """Each channel of [N,C,H,W] or [N,C] to mean 0 and variance 1, times a weight [C], plus a bias [C].

    In training mean and variance are the batch's, and `running_mean` and `running_var` [C], which are kept
    with the weights, move towards them by the share `momentum`. Inference uses the running ones. A batch must
    give each channel several values. `eps` is added to the variance.
    """
    if len(checked(x).shape) not in (2, 4):
        raise ShapeError(f"input has shape {shown(x)}; [N,C] or [N,C,H,W] are needed")
    if activation is not None and not isinstance(activation, Activation):
        raise CnncError(f"activation must be one such as relu or None, not {activation!r}")
    op = BatchNorm(finite("eps", eps), finite("momentum", momentum))
    if op.eps <= 0:
        raise CnncError(f"eps must be above 0, not {eps!r}")
    if not 0 <= op.momentum <= 1:
        raise CnncError(f"momentum must be from 0 to 1, not {momentum!r}")
    layer = x.network.layer("batch_norm", name)
    parts = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}
    params = [layer.param(part, x.shape[1:2], init) for part, init in parts.items()]
    y = layer.emit(op, x.value, *params)
    return Tensor(layer.emit(activation.op, y) if activation is not None else y, x.network)
