"""A small residual network with an activation of its own: one line declares it, forward and backward."""

from cnnc import (
    SGD,
    Network,
    Tensor,
    activation,
    add,
    conv2d,
    dense,
    flatten,
    max_pool,
    softmax_cross_entropy,
)

swish = activation("swish", "a * sigmoid(a)")


def block(x: Tensor, maps: int) -> Tensor:
    """Two 3x3 convolutions and the skip connection around them."""
    y = conv2d(x, maps, 3, pad="same", activation=swish)
    return swish(add(x, conv2d(y, maps, 3, pad="same")))


net = Network("swish_digits", optimizer=SGD(lr=0.02, momentum=0.9, weight_decay=1e-4))

x = net.input(1, 28, 28, scale=1 / 255)  # 1 @ 28x28
x = conv2d(x, 8, 3, pad="same", activation=swish)  # 8 @ 28x28
x = block(max_pool(x, 2), 8)  # 8 @ 14x14
x = block(max_pool(x, 2), 8)  # 8 @ 7x7
net.output(dense(flatten(x), 10, name="digit"))
net.loss(softmax_cross_entropy)
