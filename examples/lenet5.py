"""LeNet-5 as LeCun, Bottou, Bengio and Haffner 1998 draw it, for the digits of MNIST.

Pixels 0..255 are read as -0.1..1.175, so that the mean input is about 0 and its variance about 1.
"""

from cnnc import SGD, Network, conv2d, dense, flatten, he_uniform, mean_pool, softmax_cross_entropy, tanh

optimizer = SGD(lr=0.1, momentum=0.9, weight_decay=2e-3, schedule="linear")
net = Network("lenet5", optimizer=optimizer, init=he_uniform)

x = net.input(1, 32, 32, scale=1.275 / 255, shift=-0.1)  # 1 @ 32x32
x = conv2d(x, 6, 5, activation=tanh, name="c1")  # 6 @ 28x28
x = mean_pool(x, 2, name="s2")  # 6 @ 14x14
x = conv2d(x, 16, 5, activation=tanh, name="c3")  # 16 @ 10x10
x = mean_pool(x, 2, name="s4")  # 16 @ 5x5
x = flatten(x)  # 400
x = dense(x, 120, activation=tanh, name="c5")
x = dense(x, 84, activation=tanh, name="f6")
x = dense(x, 10, name="output")

net.output(x)
net.loss(softmax_cross_entropy)
