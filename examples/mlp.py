"""A multi-layer perceptron on MNIST's digits; the number of hidden layers is a plain loop."""

from cnnc import Adam, Network, dense, flatten, relu, softmax_cross_entropy

net = Network("mlp", optimizer=Adam(lr=0.001))

x = flatten(net.input(1, 28, 28, scale=1 / 255))  # 784
for units in (256, 128):
    x = dense(x, units, activation=relu)
net.output(dense(x, 10, name="digit"))
net.loss(softmax_cross_entropy)
