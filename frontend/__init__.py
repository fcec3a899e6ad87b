"""The DSL: networks declared in Python become layer graphs.

from cnnc import Network, conv2d, dense, flatten, relu, softmax_cross_entropy
"""

from cnnc.frontend.activations import (
    Activation,
    activation,
    log_softmax,
    relu,
    relu6,
    sigmoid,
    softmax,
    tanh,
)
from cnnc.frontend.initializers import (
    constant,
    glorot,
    glorot_normal,
    glorot_uniform,
    he,
    he_normal,
    he_uniform,
    zeros,
)
from cnnc.frontend.inputs import InputSpec
from cnnc.frontend.layers import (
    add,
    concat,
    conv2d,
    conv_transpose2d,
    dense,
    dropout,
    flatten,
    position_bias,
)
from cnnc.frontend.load import load_network
from cnnc.frontend.losses import softmax_cross_entropy, squared_error
from cnnc.frontend.network import Network
from cnnc.frontend.normalization import batch_norm
from cnnc.frontend.optimizers import SGD, Adam
from cnnc.frontend.pooling import global_mean_pool, max_pool, mean_pool
from cnnc.frontend.tensor import Tensor
from cnnc.frontend.weights import load_weights, match_weights, save_weights

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "InputSpec",
    "Network",
    "Tensor",
    "activation",
    "add",
    "batch_norm",
    "concat",
    "constant",
    "conv2d",
    "conv_transpose2d",
    "dense",
    "dropout",
    "flatten",
    "global_mean_pool",
    "glorot",
    "glorot_normal",
    "glorot_uniform",
    "he",
    "he_normal",
    "he_uniform",
    "load_network",
    "load_weights",
    "log_softmax",
    "match_weights",
    "max_pool",
    "mean_pool",
    "position_bias",
    "relu",
    "relu6",
    "save_weights",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "squared_error",
    "tanh",
    "zeros",
]
