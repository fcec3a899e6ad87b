"""AlexNet: Krizhevsky, Sutskever and Hinton 2012, the two towers merged into one as in Krizhevsky 2014,
which also leaves out the response normalisation.

Layers have the names they have in torchvision, so that the state_dict of its `alexnet` loads as it is.
"""

from cnnc import SGD, Network, conv2d, dense, dropout, flatten, max_pool, relu, softmax_cross_entropy

MEAN, DEVIATION = 0.449, 0.226  # of ImageNet's pixels over all colours, where white is 1


def network(size: int = 224, drop: float = 0.5) -> Network:
    """For images of size x size; `drop` is the share of units dropped in training."""
    net = Network("alexnet", optimizer=SGD(lr=0.01, momentum=0.9, weight_decay=5e-4))

    x = net.input(3, size, size, scale=1 / 255 / DEVIATION, shift=-MEAN / DEVIATION)  # 3 @ 224x224
    x = conv2d(x, 64, 11, stride=4, pad=2, activation=relu, name="features.0")  # 64 @ 55x55
    x = max_pool(x, 3, stride=2)  # 64 @ 27x27
    x = conv2d(x, 192, 5, pad=2, activation=relu, name="features.3")  # 192 @ 27x27
    x = max_pool(x, 3, stride=2)  # 192 @ 13x13
    x = conv2d(x, 384, 3, pad=1, activation=relu, name="features.6")  # 384 @ 13x13
    x = conv2d(x, 256, 3, pad=1, activation=relu, name="features.8")  # 256 @ 13x13
    x = conv2d(x, 256, 3, pad=1, activation=relu, name="features.10")  # 256 @ 13x13
    x = max_pool(x, 3, stride=2)  # 256 @ 6x6
    x = flatten(x)  # 9216
    x = dense(dropout(x, drop), 4096, activation=relu, name="classifier.1")
    x = dense(dropout(x, drop), 4096, activation=relu, name="classifier.4")
    x = dense(x, 1000, name="classifier.6")

    net.output(x)
    net.loss(softmax_cross_entropy)
    return net


net = network()
