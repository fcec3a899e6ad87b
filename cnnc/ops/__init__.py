"""The ops, one file per layer family: type rule, NumPy reference, derivative, samples."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cnnc.ir.op import Op
from cnnc.ops.batch_sums import BatchMoments, BatchNormSums, MergeMoments
from cnnc.ops.concat import Concat, Slice
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.dense import Dense, DenseInputGrad, DenseWeightGrad
from cnnc.ops.dropout import Dropout, DropoutMask
from cnnc.ops.elementwise import Add, Bias, Map, Mul, Relu, Relu6, Sigmoid, Sub, Tanh
from cnnc.ops.fused import Fused
from cnnc.ops.loss import (
    CorrectCount,
    SoftmaxCrossEntropy,
    SoftmaxCrossEntropyGrad,
    SquaredError,
    SquaredErrorGrad,
)
from cnnc.ops.norm import BatchNorm, BatchNormTrain, BatchStatistics, ScaleMaps
from cnnc.ops.partial import (
    PartialStrassenWeightGrad,
    PartialWeightGrad,
    PartialWinogradWeightGrad,
    SumParts,
)
from cnnc.ops.pool import MaxPool2d, MaxPool2dGrad, MeanPool2d, MeanPool2dGrad
from cnnc.ops.position_bias import PositionBias
from cnnc.ops.reduce import Broadcast, Sum
from cnnc.ops.shape import Constant, Crop2d, Dilate2d, Flatten, Pad2d, Relayout, Reshape
from cnnc.ops.softmax import LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad
from cnnc.ops.space_to_depth import DepthToSpace, SpaceToDepth
from cnnc.ops.strassen import StrassenConv2d, StrassenWeightGrad, StrassenWeights
from cnnc.ops.winograd import InlineWinogradConv2d, WinogradConv2d, WinogradWeightGrad, WinogradWeights

_ALL: tuple[type[Op], ...] = (
    *(Conv2d, Conv2dInputGrad, Conv2dWeightGrad, PartialWeightGrad, SumParts),
    *(WinogradWeights, WinogradConv2d, InlineWinogradConv2d, WinogradWeightGrad),
    *(PartialWinogradWeightGrad, PartialStrassenWeightGrad),
    *(StrassenWeights, StrassenConv2d, StrassenWeightGrad),
    *(Dense, DenseInputGrad, DenseWeightGrad),
    *(MaxPool2d, MaxPool2dGrad, MeanPool2d, MeanPool2dGrad),
    *(Relu, Relu6, Tanh, Sigmoid, Add, Sub, Mul, Bias, Map),
    *(Flatten, Reshape, Relayout, Pad2d, Crop2d, Dilate2d, Constant),
    *(SpaceToDepth, DepthToSpace),
    *(Concat, Slice),
    *(BatchNorm, BatchNormTrain, BatchStatistics, BatchMoments, MergeMoments, BatchNormSums, ScaleMaps),
    *(Sum, Broadcast, Softmax, SoftmaxGrad, LogSoftmax, LogSoftmaxGrad, Fused),
    *(PositionBias, Dropout, DropoutMask),
    *(SoftmaxCrossEntropy, SoftmaxCrossEntropyGrad, SquaredError, SquaredErrorGrad, CorrectCount),
)

OPS: Mapping[str, type[Op]] = MappingProxyType({op.name: op for op in _ALL})
"""Every op by its name in the text form of a graph."""
