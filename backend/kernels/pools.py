"""Max and mean pooling of channels-last maps: a vector of channels for each place of the window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import nest, vectors
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.windows import Pixels, Windows
from cnnc.ops.pool import MaxPool2d, MeanPool2d

Combine = Callable[[Vec, Vec], Vec]


def max_pool2d(site: Site) -> Kernel:
    """y = the largest x of each window; the padding is not looked at."""
    region = Region(site)
    k = KernelBuilder(region.anchor.name)
    return _pool(k, region, -math.inf, k.max, 1.0)


def mean_pool2d(site: Site) -> Kernel:
    """y = the sum of x over each window, times 1 / (Kh * Kw)."""
    region = Region(site)
    assert isinstance(region.anchor, MeanPool2d)
    k = KernelBuilder(region.anchor.name)
    return _pool(k, region, 0.0, Vec.__add__, 1.0 / math.prod(region.anchor.kernel))


def _pool(k: KernelBuilder, region: Region, initial: float, combine: Combine, share: float) -> Kernel:
    op, source = region.anchor, region.anchor_tensor(0)
    assert isinstance(op, MaxPool2d | MeanPool2d)
    images, channels, rows, _ = region.result.type.shape
    windows = Windows.of(op, source.type, region.result.type)
    lanes = region.site.lanes(channels)
    arguments = declare(k, region.site)
    x, epilogue = arguments.operands[region.operand(0)], Epilogue(k, region, arguments)
    with nest(k, (images, rows), parallel=True) as (image, oy):

        def column(ox: Affine, taps: Sequence[int]) -> None:
            def tile(start: Affine, count: int) -> None:
                total = k.register("total", lanes, (1,), initial)
                pixels = Pixels(x, source, image, start, lanes, count)

                def row(r: Affine) -> None:
                    for s in taps:
                        value = pixels.load(windows.row(oy, r), windows.column(ox, s))
                        total[0,] = combine(total[0,], value)

                windows.each_row(k, oy, row)
                value = total[0,] if share == 1.0 else total[0,] * share
                epilogue.finish({point(image, start, oy, ox): value}, count)

            vectors(k, channels, lanes, tile)

        windows.each_column(k, column)
    return k.build()
