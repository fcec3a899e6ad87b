"""DenseNet-121: Huang, Liu, van der Maaten and Weinberger 2016 (DenseNet-BC, growth 32).

Layers have the names they have in torchvision, so that the state_dict of its `densenet121` loads as it is.
"""

from cnnc import (
    SGD,
    Network,
    Tensor,
    batch_norm,
    concat,
    conv2d,
    dense,
    global_mean_pool,
    max_pool,
    mean_pool,
    relu,
    softmax_cross_entropy,
)

MEAN, DEVIATION = 0.449, 0.226  # of ImageNet's pixels over all colours, where white is 1
GROWTH = 32


def network(size: int = 224) -> Network:
    """For images of size x size."""
    net = Network("densenet121", optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=1e-4))

    x = net.input(3, size, size, scale=1 / 255 / DEVIATION, shift=-MEAN / DEVIATION)  # 3 @ 224x224
    x = conv2d(x, 64, 7, stride=2, pad=3, bias=False, name="features.conv0")  # 64 @ 112x112
    x = batch_norm(x, activation=relu, name="features.norm0")
    x = max_pool(x, 3, stride=2, pad=1)  # 64 @ 56x56
    x = transition(block(x, 6, "features.denseblock1"), "features.transition1")  # 128 @ 28x28
    x = transition(block(x, 12, "features.denseblock2"), "features.transition2")  # 256 @ 14x14
    x = transition(block(x, 24, "features.denseblock3"), "features.transition3")  # 512 @ 7x7
    x = block(x, 16, "features.denseblock4")  # 1024 @ 7x7
    x = batch_norm(x, activation=relu, name="features.norm5")
    x = global_mean_pool(x)  # 1024
    x = dense(x, 1000, name="classifier")

    net.output(x)
    net.loss(softmax_cross_entropy)
    return net


def block(x: Tensor, layers: int, name: str) -> Tensor:
    """Each layer reads all maps before it and adds GROWTH."""
    for number in range(1, layers + 1):
        x = concat(x, layer(x, f"{name}.denselayer{number}"))
    return x


def layer(x: Tensor, name: str) -> Tensor:
    """1x1 to four times GROWTH, 3x3 to GROWTH, each after normalisation and relu."""
    x = batch_norm(x, activation=relu, name=f"{name}.norm1")
    x = conv2d(x, 4 * GROWTH, 1, bias=False, name=f"{name}.conv1")
    x = batch_norm(x, activation=relu, name=f"{name}.norm2")
    return conv2d(x, GROWTH, 3, pad=1, bias=False, name=f"{name}.conv2")


def transition(x: Tensor, name: str) -> Tensor:
    """Half the maps, at half the size."""
    x = batch_norm(x, activation=relu, name=f"{name}.norm")
    x = conv2d(x, x.shape[1] // 2, 1, bias=False, name=f"{name}.conv")
    return mean_pool(x, 2)


net = network()
