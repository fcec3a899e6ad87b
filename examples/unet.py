"""U-Net: Ronneberger, Fischer and Brox 2015, padded so that the maps keep their size and need no cropping.

The paper takes a softmax of each pixel; here the two maps are fitted to a target by squared error.
"""

from cnnc import SGD, Network, Tensor, concat, conv2d, conv_transpose2d, max_pool, relu, squared_error


def network(size: int = 256, maps: int = 64) -> Network:
    """For pictures of size x size, a multiple of 16; `maps` are those of the first level."""
    net = Network("unet", optimizer=SGD(lr=1e-5, momentum=0.99))

    x = net.input(1, size, size, scale=1 / 255)  # 1 @ 256x256
    skip1 = double(x, maps, "down1")  # 64 @ 256x256
    skip2 = double(max_pool(skip1, 2), 2 * maps, "down2")  # 128 @ 128x128
    skip3 = double(max_pool(skip2, 2), 4 * maps, "down3")  # 256 @ 64x64
    skip4 = double(max_pool(skip3, 2), 8 * maps, "down4")  # 512 @ 32x32
    x = double(max_pool(skip4, 2), 16 * maps, "bottom")  # 1024 @ 16x16
    x = double(concat(skip4, expanded(x, "up4")), 8 * maps, "up4")  # 512 @ 32x32
    x = double(concat(skip3, expanded(x, "up3")), 4 * maps, "up3")  # 256 @ 64x64
    x = double(concat(skip2, expanded(x, "up2")), 2 * maps, "up2")  # 128 @ 128x128
    x = double(concat(skip1, expanded(x, "up1")), maps, "up1")  # 64 @ 256x256
    x = conv2d(x, 2, 1, name="classes")  # 2 @ 256x256

    net.output(x)
    net.loss(squared_error)
    return net


def double(x: Tensor, maps: int, name: str) -> Tensor:
    """Two 3x3 convolutions."""
    x = conv2d(x, maps, 3, pad="same", activation=relu, name=f"{name}.conv1")
    return conv2d(x, maps, 3, pad="same", activation=relu, name=f"{name}.conv2")


def expanded(x: Tensor, name: str) -> Tensor:
    """Half the maps at twice the size."""
    return conv_transpose2d(x, x.shape[1] // 2, 2, stride=2, name=f"{name}.expand")


net = network()
