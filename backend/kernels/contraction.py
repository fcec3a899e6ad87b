"""The geometry of a contraction: convolution, its input gradient and dense products seen as one.

Every one of them is a sum over taps and channels of source elements times weights. Which source rows and
columns the taps of a result reach is the matter of phases.py; an input gradient is a convolution with the
filter turned and its axes exchanged, a dense product a 1x1 convolution whose pixels are the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from cnnc.backend.kernels.phases import Phase, forward_phase, gradient_phases
from cnnc.backend.kernels.site import Site, Tensor
from cnnc.backend.kernels.tiles import Field
from cnnc.ir.layout import CHANNELS_LAST
from cnnc.ir.types import TensorType
from cnnc.ops.conv import Conv2d, Conv2dInputGrad


@dataclass(frozen=True)
class Contraction:
    """Extents of a contraction; `channels` and `maps` count one group. Stride, origin (the padding above and
    to the left) and dilation are those of the convolution, also where this is its input gradient, `flipped`:
    then the source is dy and the result dx."""

    batch: int
    groups: int
    channels: int
    maps: int
    source: tuple[int, int]
    result: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    origin: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    flipped: bool = False

    @property
    def is_pointwise(self) -> bool:
        """A 1x1 window that visits every pixel: rows may be cut and joined at will."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.source == self.result

    @property
    def is_depthwise(self) -> bool:
        """One channel and one map per group, of several."""
        return self.groups > 1 and self.channels == self.maps == 1

    def phases(self, axis: int) -> tuple[Phase, ...]:
        """The phases of the result's rows (0) or columns (1), those with most positions first."""
        geometry = self.kernel[axis], self.stride[axis], self.origin[axis], self.dilation[axis]
        if self.flipped:
            return gradient_phases(self.result[axis], *geometry)
        return (forward_phase(self.result[axis], *geometry),)

    def overhangs(self, axis: int) -> bool:
        """Whether some window reaches beyond the source along rows (0) or columns (1)."""
        return any(phase.overhangs(self.source[axis]) for phase in self.phases(axis))

    def source_index(self, axis: int, position: int, tap: int) -> int:
        """The source row (0) or column (1) that a tap of a convolution reads at a position of the result."""
        return position * self.stride[axis] + tap * self.dilation[axis] - self.origin[axis]

    @property
    def flops(self) -> int:
        pixels = self.batch * self.result[0] * self.result[1]
        return 2 * pixels * self.groups * self.maps * self.channels * self.kernel[0] * self.kernel[1]


def forward(op: Conv2d, x: TensorType, w: TensorType, y: TensorType) -> Contraction:
    """A convolution as it stands."""
    n, _, height, width = x.shape
    maps, channels, kh, kw = w.shape
    return Contraction(
        n,
        op.groups,
        channels,
        maps // op.groups,
        (height, width),
        (y.shape[2], y.shape[3]),
        (kh, kw),
        op.stride,
        op.pad[:2],
        op.dilation,
    )


def input_grad(op: Conv2dInputGrad, dy: TensorType, w: TensorType, dx: TensorType) -> Contraction:
    """An input gradient as it stands."""
    maps, channels, kh, kw = w.shape
    return Contraction(
        dy.shape[0],
        op.groups,
        maps // op.groups,
        channels,
        (dy.shape[2], dy.shape[3]),
        (dx.shape[2], dx.shape[3]),
        (kh, kw),
        op.stride,
        op.pad[:2],
        op.dilation,
        flipped=True,
    )


def dense(rows: int, channels: int, maps: int, apart: bool = False) -> Contraction:
    """A dense product over `rows` rows: each row is a pixel of one image, or `apart` an image of its own."""
    images, pixels = (rows, 1) if apart else (1, rows)
    return Contraction(images, 1, channels, maps, (pixels, 1), (pixels, 1), (1, 1))


def tile_field(shape: Contraction, window: tuple[int, int] = (1, 1)) -> Field:
    """What is cut into register tiles: the pixels of the phase with the most."""
    rows, columns = (shape.phases(axis)[0].count for axis in (0, 1))
    return Field(rows, columns, window)


def as_images(
    site: Site, shape: Contraction, is_pixel_tensor: Callable[[int], bool], summed: Collection[int] = ()
) -> Site:
    """The site with its pixel tensors seen as [N,C,H,W] of the contraction's extents, in memory as they
    were; `is_pixel_tensor` tells for an operand's number. Results are pixel tensors but for those `summed`.
    Raises UnsupportedError if rows of a tensor with a pitch would be run together."""

    def image(tensor: Tensor) -> Tensor:
        channels = tensor.type.size // (shape.batch * shape.result[0] * shape.result[1])
        seen = TensorType(tensor.type.dtype, (shape.batch, channels, *shape.result))
        keeps_layout = tensor.type.rank == 4 and tensor.layout.block == 1
        return tensor.seen_as(seen, tensor.layout if keeps_layout else CHANNELS_LAST)

    operands = tuple(image(t) if is_pixel_tensor(i) else t for i, t in enumerate(site.operands))
    results = tuple(t if i in summed else image(t) for i, t in enumerate(site.results))
    return replace(site, operands=operands, results=results)
