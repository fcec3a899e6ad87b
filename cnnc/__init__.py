"""cnnc, a compiler for convolutional networks: the front door."""
