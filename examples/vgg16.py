"""VGG-16: Simonyan and Zisserman 2014, configuration D.

Layers have the names they have in torchvision, so that the state_dict of its `vgg16` loads as it is.
"""

from cnnc import SGD, Network, conv2d, dense, dropout, flatten, max_pool, relu, softmax_cross_entropy

MEAN, DEVIATION = 0.449, 0.226  # of ImageNet's pixels over all colours, where white is 1
BLOCKS = (
    (64, 64),  # 64 @ 224x224
    (128, 128),  # 128 @ 112x112
    (256, 256, 256),  # 256 @ 56x56
    (512, 512, 512),  # 512 @ 28x28
    (512, 512, 512),  # 512 @ 14x14
)


def network(size: int = 224, drop: float = 0.5) -> Network:
    """For images of size x size; `drop` is the share of units dropped in training."""
    net = Network("vgg16", optimizer=SGD(lr=0.01, momentum=0.9, weight_decay=5e-4))

    x = net.input(3, size, size, scale=1 / 255 / DEVIATION, shift=-MEAN / DEVIATION)  # 3 @ 224x224
    number = 0
    for block in BLOCKS:
        for maps in block:
            x = conv2d(x, maps, 3, pad=1, activation=relu, name=f"features.{number}")
            number += 2  # torchvision counts the relu,
        x = max_pool(x, 2)
        number += 1  # and the pool
    x = flatten(x)  # 512 @ 7x7: 25088
    x = dense(x, 4096, activation=relu, name="classifier.0")
    x = dense(dropout(x, drop), 4096, activation=relu, name="classifier.3")
    x = dense(dropout(x, drop), 1000, name="classifier.6")

    net.output(x)
    net.loss(softmax_cross_entropy)
    return net


net = network()
