"""A bias for every position: the maps of an image and the bias lie in one order, so both are flat."""

from __future__ import annotations

import math

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import by_images, vectors
from cnnc.backend.kernels.site import Site, declare
from cnnc.errors import UnsupportedError


def position_bias(site: Site) -> Kernel:
    """y = x + bias, image by image."""
    full, bias = site.operands
    if full.layout.axes[0] != 0 or [a - 1 for a in full.layout.axes[1:]] != list(bias.layout.axes):
        raise UnsupportedError(f"position_bias: maps in {full.layout}, the bias in {bias.layout}")
    images, size = full.shape[0], math.prod(bias.shape)
    lanes = site.lanes(size)
    k = KernelBuilder(site.op.name)
    arguments = declare(k, site, lambda t: (size,) if t.type.rank == 3 else (images, size))
    (x, biases), (y,) = arguments.operands, arguments.results
    with by_images(k, site, "image", images) as image:

        def tile(start: Affine, count: int) -> None:
            value = x.load((image, start), lanes, count) + biases.load((start,), lanes, count)
            y.store((image, start), value, count)

        vectors(k, size, lanes, tile)
    return k.build()
