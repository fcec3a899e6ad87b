"""ResNet-18: He, Zhang, Ren and Sun 2015.

Layers have the names they have in torchvision, so that the state_dict of its `resnet18` loads as it is.
"""

from cnnc import (
    SGD,
    Activation,
    Network,
    Tensor,
    add,
    batch_norm,
    conv2d,
    dense,
    global_mean_pool,
    max_pool,
    relu,
    softmax_cross_entropy,
)

MEAN, DEVIATION = 0.449, 0.226  # of ImageNet's pixels over all colours, where white is 1


def network(size: int = 224) -> Network:
    """For images of size x size."""
    net = Network("resnet18", optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=1e-4))

    x = net.input(3, size, size, scale=1 / 255 / DEVIATION, shift=-MEAN / DEVIATION)  # 3 @ 224x224
    x = convolution(x, 64, 7, "conv1", "bn1", stride=2, activation=relu)  # 64 @ 112x112
    x = max_pool(x, 3, stride=2, pad=1)  # 64 @ 56x56
    x = stage(x, 64, 1, "layer1")  # 64 @ 56x56
    x = stage(x, 128, 2, "layer2")  # 128 @ 28x28
    x = stage(x, 256, 2, "layer3")  # 256 @ 14x14
    x = stage(x, 512, 2, "layer4")  # 512 @ 7x7
    x = global_mean_pool(x)  # 512
    x = dense(x, 1000, name="fc")

    net.output(x)
    net.loss(softmax_cross_entropy)
    return net


def stage(x: Tensor, maps: int, stride: int, name: str) -> Tensor:
    """Two blocks, of which the first has the stride."""
    return block(block(x, maps, stride, f"{name}.0"), maps, 1, f"{name}.1")


def block(x: Tensor, maps: int, stride: int, name: str) -> Tensor:
    """Two 3x3 convolutions and the connection around them."""
    y = convolution(x, maps, 3, f"{name}.conv1", f"{name}.bn1", stride, activation=relu)
    y = convolution(y, maps, 3, f"{name}.conv2", f"{name}.bn2")
    if stride > 1:
        x = convolution(x, maps, 1, f"{name}.downsample.0", f"{name}.downsample.1", stride)
    return relu(add(y, x))


def convolution(
    x: Tensor,
    maps: int,
    kernel: int,
    name: str,
    norm: str,
    stride: int = 1,
    activation: Activation | None = None,
) -> Tensor:
    """A convolution and its batch normalisation."""
    x = conv2d(x, maps, kernel, stride=stride, pad=kernel // 2, bias=False, name=name)
    return batch_norm(x, activation=activation, name=norm)


net = network()
