"""Small networks of the DSL, and data for them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cnnc.frontend import (
    add,
    batch_norm,
    concat,
    conv2d,
    conv_transpose2d,
    dense,
    dropout,
    flatten,
    max_pool,
    mean_pool,
    position_bias,
    relu,
    relu6,
    sigmoid,
    softmax,
    tanh,
)
from cnnc.frontend.losses import softmax_cross_entropy, squared_error
from cnnc.frontend.network import Network
from cnnc.ir.types import Array
from cnnc.ops.optimizer import SGD, Optimizer


def classifier(optimizer: Optimizer | None = None, name: str = "small") -> Network:
    """Two convolutions and two dense layers on 12x12 images, 3 classes."""
    net = Network(name, optimizer=optimizer or SGD(lr=0.05, momentum=0.9))
    h = max_pool(relu(conv2d(net.input(1, 12, 12), 6, 3)), 2)
    h = mean_pool(tanh(conv2d(h, 9, 3, pad=1)), 2)
    net.output(dense(sigmoid(dense(flatten(h), 11)), 3))
    net.loss(softmax_cross_entropy)
    return net


def regression(optimizer: Optimizer | None = None) -> Network:
    """A residual block with two outputs: what is trained and the features before."""
    net = Network("regression", optimizer=optimizer or SGD(lr=0.01))
    x = net.input(2, 8, 8)
    stem = relu(conv2d(x, 5, 3, pad=1))
    joined = relu(add(conv2d(stem, 5, 3, pad=1), stem))
    net.output(softmax(dense(flatten(mean_pool(joined, 4)), 4)))
    net.loss(squared_error)
    return net


def dropping(optimizer: Optimizer | None = None) -> Network:
    """Dropout of maps, of flattened maps and of rows, between layers of the less common kinds."""
    net = Network("dropping", optimizer=optimizer or SGD(lr=0.05, momentum=0.9))
    x = max_pool(relu6(conv2d(net.input(1, 12, 12), 6, 3, pad="same")), 3, stride=2, ceil=True)
    x = relu(conv_transpose2d(dropout(x, 0.2), 5, 2, stride=2))
    x = position_bias(mean_pool(x, 3, stride=2, pad=1, include_pad=False))
    x = dense(dropout(flatten(x), 0.5), 11, activation=relu)
    net.output(dense(dropout(x, 0.25), 3))
    net.loss(softmax_cross_entropy)
    return net


def normalizing(optimizer: Optimizer | None = None) -> Network:
    """Batch norms behind convolutions and a dense layer, with a sum, and behind a pool. Everything is
    smooth: a rounding error cannot choose another branch, which a norm would spread over the batch."""
    net = Network("normalizing", optimizer=optimizer or SGD(lr=0.05, momentum=0.9))
    x = batch_norm(conv2d(net.input(1, 12, 12), 6, 3, pad=1, bias=False), activation=tanh)
    y = batch_norm(conv2d(x, 6, 3, pad=1, bias=False), momentum=0.3)
    x = batch_norm(mean_pool(sigmoid(add(x, y)), 2), eps=0.01)
    x = batch_norm(dense(flatten(tanh(x)), 11, bias=False), activation=sigmoid)
    net.output(dense(x, 3))
    net.loss(softmax_cross_entropy)
    return net


def mixed(optimizer: Optimizer | None = None) -> Network:
    """One of each kind of convolution, branches that are joined, batch norms: 12x12 images, 3 classes."""
    net = Network("mixed", optimizer=optimizer or SGD(lr=0.05, momentum=0.9))
    x = batch_norm(conv2d(net.input(1, 12, 12), 19, 3, pad=1, bias=False), activation=relu)
    wide = batch_norm(conv2d(x, 21, 3, pad=1, bias=False, name="fast"), activation=tanh)
    thin = relu(conv2d(x, 19, 3, stride=1, pad=1, groups=19))
    x = concat(conv2d(wide, 9, 1), conv2d(thin, 7, (1, 3), pad=(0, 1, 0, 1)), x)
    x = relu(conv2d(max_pool(x, 2), 10, 3, stride=2, pad=1, groups=5))
    net.output(dense(flatten(mean_pool(x, 3)), 3))
    net.loss(softmax_cross_entropy)
    return net


def shaken(weights: Mapping[str, Array], seed: int = 0) -> dict[str, Array]:
    """Weights with noise, so that no bias is zero and no running statistic what it is at first; variances
    stay positive."""
    rng = np.random.default_rng(seed)
    noise = {name: 0.1 * rng.standard_normal(w.shape, np.float32) for name, w in weights.items()}
    return {n: w * np.exp(noise[n]) if n.endswith("_var") else w + noise[n] for n, w in weights.items()}


def digits(count: int, seed: int = 0, classes: int = 3) -> tuple[Array, Array]:
    """Images of bright bars, noise around them; the label says where the bar is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    images = rng.normal(0, 0.3, (count, 1, 12, 12)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[0, 1 + 4 * label : 3 + 4 * label] += 1.0
    return images, labels
