"""Which kernel function computes which op, and the one door through which kernels are made.

backend/lower.py calls `kernel_for` with every site of a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cnnc.backend.kernel.bounds import prove_bounds
from cnnc.backend.kernel.check import check_kernel
from cnnc.backend.kernel.conflicts import prove_no_conflicts
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernels.concat import concat, take_slice
from cnnc.backend.kernels.dense import dense_product
from cnnc.backend.kernels.dense_grad import dense_input_grad
from cnnc.backend.kernels.direct import conv2d, conv2d_input_grad
from cnnc.backend.kernels.dropout import dropout_mask
from cnnc.backend.kernels.elementwise import elementwise
from cnnc.backend.kernels.losses import (
    correct_count,
    softmax_cross_entropy,
    softmax_cross_entropy_grad,
    squared_error,
    squared_error_grad,
)
from cnnc.backend.kernels.maps import constant, crop2d, dilate2d, pad2d
from cnnc.backend.kernels.max_pool_grad import max_pool2d_grad
from cnnc.backend.kernels.mean_pool_grad import mean_pool2d_grad
from cnnc.backend.kernels.norm import batch_moments, batch_norm_sums, merge_moments, scale_maps
from cnnc.backend.kernels.pools import max_pool2d, mean_pool2d
from cnnc.backend.kernels.position_bias import position_bias
from cnnc.backend.kernels.reduce import broadcast, sum_axes
from cnnc.backend.kernels.region import Region
from cnnc.backend.kernels.relayout import relayout, reshape
from cnnc.backend.kernels.site import Site
from cnnc.backend.kernels.softmax import log_softmax, log_softmax_grad, softmax, softmax_grad
from cnnc.backend.kernels.space_to_depth import depth_to_space, space_to_depth
from cnnc.backend.kernels.strassen import strassen_conv2d
from cnnc.backend.kernels.strassen_weight_grad import strassen_weight_grad
from cnnc.backend.kernels.strassen_weights import strassen_weights
from cnnc.backend.kernels.sum_parts import sum_parts
from cnnc.backend.kernels.weight_grad import conv2d_weight_grad, dense_weight_grad
from cnnc.backend.kernels.winograd import winograd_conv2d
from cnnc.backend.kernels.winograd_weight_grad import winograd_weight_grad
from cnnc.backend.kernels.winograd_weights import winograd_weights
from cnnc.errors import UnsupportedError
from cnnc.ir.location import UNKNOWN, Location
from cnnc.ir.op import Op
from cnnc.ops.batch_sums import BatchMoments, BatchNormSums, MergeMoments
from cnnc.ops.concat import Concat, Slice
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.dense import Dense, DenseInputGrad, DenseWeightGrad
from cnnc.ops.dropout import DropoutMask
from cnnc.ops.elementwise import Elementwise
from cnnc.ops.loss import (
    CorrectCount,
    SoftmaxCrossEntropy,
    SoftmaxCrossEntropyGrad,
    SquaredError,
    SquaredErrorGrad,
)
from cnnc.ops.norm import ScaleMaps
from cnnc.ops.partial import SumParts
from cnnc.ops.pool import MaxPool2d, MaxPool2dGrad, MeanPool2d, MeanPool2dGrad
from cnnc.ops.position_bias import PositionBias
from cnnc.ops.reduce import Broadcast, Sum
from cnnc.ops.shape import Constant, Crop2d, Dilate2d, Flatten, Pad2d, Relayout, Reshape
from cnnc.ops.softmax import LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad
from cnnc.ops.space_to_depth import DepthToSpace, SpaceToDepth
from cnnc.ops.strassen import StrassenConv2d, StrassenWeightGrad, StrassenWeights
from cnnc.ops.winograd import WinogradConv2d, WinogradWeightGrad, WinogradWeights

KERNELS: Mapping[type[Op], Callable[[Site], Kernel]] = MappingProxyType(
    {
        Conv2d: conv2d,
        Conv2dInputGrad: conv2d_input_grad,
        Conv2dWeightGrad: conv2d_weight_grad,
        SumParts: sum_parts,
        Dense: dense_product,
        DenseInputGrad: dense_input_grad,
        DenseWeightGrad: dense_weight_grad,
        WinogradWeights: winograd_weights,
        WinogradConv2d: winograd_conv2d,
        WinogradWeightGrad: winograd_weight_grad,
        StrassenWeights: strassen_weights,
        StrassenConv2d: strassen_conv2d,
        StrassenWeightGrad: strassen_weight_grad,
        Elementwise: elementwise,
        MaxPool2d: max_pool2d,
        MaxPool2dGrad: max_pool2d_grad,
        MeanPool2d: mean_pool2d,
        MeanPool2dGrad: mean_pool2d_grad,
        Sum: sum_axes,
        Broadcast: broadcast,
        BatchMoments: batch_moments,
        MergeMoments: merge_moments,
        BatchNormSums: batch_norm_sums,
        ScaleMaps: scale_maps,
        Softmax: softmax,
        SoftmaxGrad: softmax_grad,
        LogSoftmax: log_softmax,
        LogSoftmaxGrad: log_softmax_grad,
        PositionBias: position_bias,
        DropoutMask: dropout_mask,
        SoftmaxCrossEntropy: softmax_cross_entropy,
        SoftmaxCrossEntropyGrad: softmax_cross_entropy_grad,
        SquaredError: squared_error,
        SquaredErrorGrad: squared_error_grad,
        CorrectCount: correct_count,
        Relayout: relayout,
        Flatten: reshape,
        Reshape: reshape,
        Pad2d: pad2d,
        Crop2d: crop2d,
        Dilate2d: dilate2d,
        SpaceToDepth: space_to_depth,
        DepthToSpace: depth_to_space,
        Constant: constant,
        Concat: concat,
        Slice: take_slice,
    }
)
"""A kernel function serves its op, the op's subclasses and regions anchored by either."""


MADE: Mapping[Callable[[Site], Kernel], int] = MappingProxyType(
    {
        conv2d: 0,
        winograd_conv2d: 0,
        strassen_conv2d: 0,
        conv2d_weight_grad: 1,
        winograd_weight_grad: 1,
        strassen_weight_grad: 1,
    }
)
"""Which operand of its anchor a kernel function can make as it reads it, by its position."""


@dataclass(frozen=True)
class Proof:
    """What was proven of a kernel: accesses in bounds, and (parallel loop, written buffer) pairs free
    of conflicts."""

    accesses: int
    conflicts: int


def kernel_for(site: Site) -> Kernel:
    """The site's kernel; see `proven_kernel`."""
    return proven_kernel(site)[0]


def proven_kernel(site: Site, loc: Location = UNKNOWN) -> tuple[Kernel, Proof]:
    """The site's kernel: checked, proven in bounds, its parallel loops proven free of conflicts.

    Raises UnsupportedError, placed at `loc`, for an op or layout without a kernel.
    """
    region = Region(site)
    anchor = region.anchor
    function = next((KERNELS[kind] for kind in type(anchor).__mro__ if kind in KERNELS), None)
    if function is None:
        raise UnsupportedError(f"{anchor.name}: there is no kernel for this op", loc)
    try:
        region.expect_prologue(MADE.get(function))
        kernel = function(site)
    except UnsupportedError as error:
        raise error.at(loc) from None
    check_kernel(kernel)
    return kernel, Proof(prove_bounds(kernel), prove_no_conflicts(kernel))
