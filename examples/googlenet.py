"""GoogLeNet: Szegedy et al. 2014, with the batch normalisation of Ioffe and Szegedy 2015 and no
auxiliary heads.

Layers have the names they have in torchvision, so that the state_dict of its `googlenet` loads as it is.
As there, the widest filter of an inception module is 3x3 where the paper has 5x5.
"""

from cnnc import (
    SGD,
    Network,
    Tensor,
    batch_norm,
    concat,
    conv2d,
    dense,
    dropout,
    global_mean_pool,
    max_pool,
    relu,
    softmax_cross_entropy,
)

MEAN, DEVIATION = 0.449, 0.226  # of ImageNet's pixels over all colours, where white is 1


def network(size: int = 224, drop: float = 0.2) -> Network:
    """For images of size x size; `drop` is the share of units dropped in training."""
    optimizer = SGD(lr=0.01, momentum=0.9, weight_decay=1e-4)
    net = Network("googlenet", optimizer=optimizer, weight_name=without_heads)

    x = net.input(3, size, size, scale=1 / 255 / DEVIATION, shift=-MEAN / DEVIATION)  # 3 @ 224x224
    x = convolution(x, 64, 7, "conv1", stride=2)  # 64 @ 112x112
    x = max_pool(x, 3, stride=2, ceil=True)  # 64 @ 56x56
    x = convolution(x, 64, 1, "conv2")  # 64 @ 56x56
    x = convolution(x, 192, 3, "conv3")  # 192 @ 56x56
    x = max_pool(x, 3, stride=2, ceil=True)  # 192 @ 28x28
    x = inception(x, 64, (96, 128), (16, 32), 32, "inception3a")  # 256 @ 28x28
    x = inception(x, 128, (128, 192), (32, 96), 64, "inception3b")  # 480 @ 28x28
    x = max_pool(x, 3, stride=2, ceil=True)  # 480 @ 14x14
    x = inception(x, 192, (96, 208), (16, 48), 64, "inception4a")  # 512 @ 14x14
    x = inception(x, 160, (112, 224), (24, 64), 64, "inception4b")  # 512 @ 14x14
    x = inception(x, 128, (128, 256), (24, 64), 64, "inception4c")  # 512 @ 14x14
    x = inception(x, 112, (144, 288), (32, 64), 64, "inception4d")  # 528 @ 14x14
    x = inception(x, 256, (160, 320), (32, 128), 128, "inception4e")  # 832 @ 14x14
    x = max_pool(x, 2, stride=2, ceil=True)  # 832 @ 7x7
    x = inception(x, 256, (160, 320), (32, 128), 128, "inception5a")  # 832 @ 7x7
    x = inception(x, 384, (192, 384), (48, 128), 128, "inception5b")  # 1024 @ 7x7
    x = global_mean_pool(x)  # 1024
    x = dense(dropout(x, drop), 1000, name="fc")

    net.output(x)
    net.loss(softmax_cross_entropy)
    return net


def inception(
    x: Tensor, single: int, middle: tuple[int, int], wide: tuple[int, int], pooled: int, name: str
) -> Tensor:
    """Four ways side by side; of a pair, the first convolution is 1x1 and narrows for the second."""
    return concat(
        convolution(x, single, 1, f"{name}.branch1"),
        convolution(convolution(x, middle[0], 1, f"{name}.branch2.0"), middle[1], 3, f"{name}.branch2.1"),
        convolution(convolution(x, wide[0], 1, f"{name}.branch3.0"), wide[1], 3, f"{name}.branch3.1"),
        convolution(max_pool(x, 3, stride=1, pad=1), pooled, 1, f"{name}.branch4.1"),
    )


def convolution(x: Tensor, maps: int, kernel: int, name: str, stride: int = 1) -> Tensor:
    """A convolution, its batch normalisation and relu."""
    x = conv2d(x, maps, kernel, stride=stride, pad=kernel // 2, bias=False, name=f"{name}.conv")
    return batch_norm(x, eps=0.001, activation=relu, name=f"{name}.bn")


def without_heads(name: str) -> str | None:
    """A state_dict may hold the auxiliary heads, which only training on ImageNet had."""
    return None if name.startswith(("aux1.", "aux2.")) else name


net = network()
