"""AlphaGo's policy network: Silver et al. 2016.

From 48 features of each point of a Go board to the odds of a move to each of the 361 points.
"""

from cnnc import (
    SGD,
    Network,
    conv2d,
    flatten,
    position_bias,
    relu,
    softmax,
    softmax_cross_entropy,
)


def network(size: int = 19, maps: int = 192) -> Network:
    """For a board of size x size; the match version has 192 maps."""
    net = Network("alphago", optimizer=SGD(lr=0.003))

    x = net.input(48, size, size)  # 48 @ 19x19
    x = conv2d(x, maps, 5, pad="same", activation=relu, name="conv1")  # 192 @ 19x19
    for number in range(2, 13):
        x = conv2d(x, maps, 3, pad="same", activation=relu, name=f"conv{number}")  # 192 @ 19x19
    x = conv2d(x, 1, 1, bias=False, name="conv13")  # 1 @ 19x19
    x = position_bias(x, name="position")  # 1 @ 19x19
    x = flatten(x)  # 361

    net.output(softmax(x))
    net.loss(softmax_cross_entropy, of=x)
    return net


net = network()
