"""MobileNet v2: Sandler, Howard, Zhu, Zhmoginov and Chen 2018. The paper trains with RMSProp; here SGD does.

Layers have the names they have in torchvision, so that the state_dict of its `mobilenet_v2` loads as it is.
"""

from cnnc import (
    SGD,
    Network,
    Tensor,
    add,
    batch_norm,
    conv2d,
    dense,
    dropout,
    global_mean_pool,
    relu6,
    softmax_cross_entropy,
)

MEAN, DEVIATION = 0.449, 0.226  # of ImageNet's pixels over all colours, where white is 1
STAGES = (  # expansion, maps, blocks, stride of the first
    (1, 16, 1, 1),  # 16 @ 112x112
    (6, 24, 2, 2),  # 24 @ 56x56
    (6, 32, 3, 2),  # 32 @ 28x28
    (6, 64, 4, 2),  # 64 @ 14x14
    (6, 96, 3, 1),  # 96 @ 14x14
    (6, 160, 3, 2),  # 160 @ 7x7
    (6, 320, 1, 1),  # 320 @ 7x7
)


def network(size: int = 224, drop: float = 0.2) -> Network:
    """For images of size x size; `drop` is the share of units dropped in training."""
    net = Network("mobilenet_v2", optimizer=SGD(lr=0.045, momentum=0.9, weight_decay=4e-5))

    x = net.input(3, size, size, scale=1 / 255 / DEVIATION, shift=-MEAN / DEVIATION)  # 3 @ 224x224
    x = convolution(x, 32, 3, "features.0", stride=2)  # 32 @ 112x112
    number = 1
    for expansion, maps, blocks, first_stride in STAGES:
        for stride in (first_stride, *[1] * (blocks - 1)):
            x = bottleneck(x, expansion, maps, stride, f"features.{number}.conv")
            number += 1
    x = convolution(x, 1280, 1, f"features.{number}")  # 1280 @ 7x7
    x = global_mean_pool(x)  # 1280
    x = dense(dropout(x, drop), 1000, name="classifier.1")

    net.output(x)
    net.loss(softmax_cross_entropy)
    return net


def bottleneck(x: Tensor, expansion: int, maps: int, stride: int, name: str) -> Tensor:
    """1x1 to more maps, 3x3 on each map, 1x1 to few maps without activation; added to x if it fits."""
    channels, y, part = x.shape[1], x, 0
    if expansion > 1:
        y = convolution(y, expansion * channels, 1, f"{name}.{part}")
        part += 1
    y = convolution(y, expansion * channels, 3, f"{name}.{part}", stride, groups=expansion * channels)
    y = conv2d(y, maps, 1, bias=False, name=f"{name}.{part + 1}")
    y = batch_norm(y, name=f"{name}.{part + 2}")
    return add(y, x) if x.shape == y.shape else y


def convolution(x: Tensor, maps: int, kernel: int, name: str, stride: int = 1, groups: int = 1) -> Tensor:
    """A convolution, its batch normalisation and relu6."""
    x = conv2d(x, maps, kernel, stride, kernel // 2, groups=groups, bias=False, name=f"{name}.0")
    return batch_norm(x, activation=relu6, name=f"{name}.1")


net = network()
