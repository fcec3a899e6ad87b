"""Pooling layers: windows of a map in each channel, and the mean of whole maps."""

from __future__ import annotations

from cnnc.frontend.arguments import Padding, Size, flag, padding, pair
from cnnc.frontend.calls import user_call
from cnnc.frontend.recording import checked, record
from cnnc.frontend.tensor import Tensor
from cnnc.ops.pool import MaxPool2d, MeanPool2d
from cnnc.ops.shape import Flatten

Pads = tuple[int, int, int, int]


@user_call
def max_pool(
    x: Tensor,
    kernel: Size,
    stride: Size | None = None,
    pad: Padding = 0,
    ceil: bool = False,
    name: str | None = None,
) -> Tensor:
    """The largest of each window of [N,C,H,W]; the stride is the kernel unless given, padding never wins.

    With `ceil` a last window that sticks out counts too, as long as it begins on the map or its padding
    before: sizes are rounded up, as PyTorch's `ceil_mode` does.
    """
    taps, step, pads = _window(checked(x, 4), kernel, stride, pad)
    all_pads = _with_last_windows(x, taps, step, pads) if flag("ceil", ceil) else pads
    return record("max_pool", name, MaxPool2d(taps, step, all_pads), x)


@user_call
def mean_pool(
    x: Tensor,
    kernel: Size,
    stride: Size | None = None,
    pad: Padding = 0,
    ceil: bool = False,
    include_pad: bool = True,
    name: str | None = None,
) -> Tensor:
    """The mean of each window of [N,C,H,W]; the stride is the kernel unless given.

    Padding counts as zeros, or with `include_pad=False` not at all. With `ceil` a last window that sticks
    out counts too, see `max_pool`; what it has beyond the padding counts in no case.
    """
    taps, step, pads = _window(checked(x, 4), kernel, stride, pad)
    all_pads = _with_last_windows(x, taps, step, pads) if flag("ceil", ceil) else pads
    counted: Pads = pads if flag("include_pad", include_pad) else (0, 0, 0, 0)
    top, left, bottom, right = (a - c for a, c in zip(all_pads, counted, strict=True))
    return record("mean_pool", name, MeanPool2d(taps, step, all_pads, (top, left, bottom, right)), x)


@user_call
def global_mean_pool(x: Tensor, name: str | None = None) -> Tensor:
    """The mean of each map: [N,C,H,W] to [N,C]."""
    height, width = checked(x, 4).shape[2:]
    layer = x.network.layer("global_mean_pool", name)
    means = layer.emit(MeanPool2d((height, width), (height, width)), x.value)
    return Tensor(layer.emit(Flatten(), means), x.network)


def _window(
    x: Tensor, kernel: Size, stride: Size | None, pad: Padding
) -> tuple[tuple[int, int], tuple[int, int], Pads]:
    """Kernel, stride and padding of a pooling window."""
    taps = pair("kernel", kernel, 1)
    step = taps if stride is None else pair("stride", stride, 1)
    return taps, step, padding(pad, taps, (1, 1), step, x.shape[2:])


def _with_last_windows(x: Tensor, taps: tuple[int, int], step: tuple[int, int], pads: Pads) -> Pads:
    """The padding with what last windows that stick out need below and on the right."""
    ends = []
    for axis, (k, s) in enumerate(zip(taps, step, strict=True)):
        before, after, size = pads[axis], pads[axis + 2], x.shape[2 + axis]
        last = -(-(size + before + after - k) // s) * s
        if last >= size + before:
            last -= s
        ends.append(max(after, last + k - size - before))
    return pads[0], pads[1], ends[0], ends[1]
