"""Gradients of mean pooling, channels last: every place gathers its share from the windows that have it.

Windows that cover the map exactly once are computed one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from cnnc.backend.kernel.builder import Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import nest
from cnnc.backend.kernels.pool_cells import Channels, PoolGrad, Run, each_place, finish_run, windows_rows
from cnnc.backend.kernels.shares import Shares
from cnnc.backend.kernels.site import Site
from cnnc.ops.pool import MeanPool2dGrad

MOST_TOGETHER = 4
"""Columns of a window that are written together."""


def mean_pool2d_grad(site: Site) -> Kernel:
    """dy -> dx: every place of a window gets its dy over the window's counted elements."""
    grad = PoolGrad.of(site)
    op = grad.region.anchor
    assert isinstance(op, MeanPool2dGrad)
    grad.region.expect_bands(lambda rows: grad.windows.tile and rows == op.kernel[0])
    shares = Shares.of(grad.k, op, grad.region.result.type, grad.region.anchor_tensor(0).type)
    if grad.windows.tile:
        return _mean_of_tiles(grad, shares)
    return _gather(grad, lambda run, vector: _mean_of_run(grad, shares, run, vector))


def _mean_of_tiles(grad: PoolGrad, shares: Shares) -> Kernel:
    """Every place copies a share of its window's gradient. A band is a row of windows."""
    k, windows = grad.k, grad.windows
    high, wide = windows.kernel
    share = shares.one
    assert share is not None, "windows without padding are of one size"
    together = next(n for n in range(MOST_TOGETHER, 0, -1) if wide % n == 0)

    def line(image: Affine, oy: Affine, r: Affine) -> None:
        with k.loop("ox", 0, windows.result[1]) as ox, k.once_or_loop("s", wide // together) as s:

            def places(at: Channels) -> None:
                value = grad.pixels(0, at).load(oy, ox) * share
                columns = (windows.column(ox, s * together + i) for i in range(together))
                grad.finish(at, windows.row(oy, r), [(column, value) for column in columns], oy)

            grad.vectors(image, places)

    if grad.region.bands:
        with nest(k, (grad.images, windows.result[0]), True) as (image, oy):
            grad.begin(image, oy)
            with k.loop("r", 0, high) as r:
                line(image, oy, r)
        return k.build()
    with nest(k, (grad.images, windows.result[0], high), True, grad.marked) as (image, oy, r):
        line(image, oy, r)
    return k.build()


def _gather(grad: PoolGrad, body: Callable[[Run, Channels], None]) -> Kernel:
    """`body` for every run of cells that has windows, and every vector of channels; parallel over rows of
    cells."""
    k = grad.k

    def places(run: Run, at: Channels) -> None:
        if run.windows:
            body(run, at)
        else:
            finish_run(grad, run, at, [k.constant(0.0, at.lanes)] * len(run.columns))

    with nest(k, (grad.images, len(grad.cells)), parallel=True, images=grad.marked) as (image, row):
        each_place(grad, image, row + grad.cells.start, places)
    return k.build()


def _mean_of_run(grad: PoolGrad, shares: Shares, run: Run, at: Channels) -> None:
    """The windows of one column are added up first, then the columns that have a place."""
    k, dy, step = grad.k, grad.pixels(0, at), grad.windows.stride[1]
    parts = k.register("part", at.lanes, (len(run.windows),))
    with windows_rows(grad, run) as (oy, _):
        for number, (d, taps) in enumerate(run.windows):
            value = dy.load(oy, run.column + d)
            if shares.one is None:
                value = value * shares.of_window(oy, False, run.column + d, taps, at.lanes)
            parts[number,] = parts[number,] + value
    values = []
    for c in run.columns:
        having = [parts[number,] for number, (d, taps) in enumerate(run.windows) if c - d * step in taps]
        total = reduce(Vec.__add__, having) if having else k.constant(0.0, at.lanes)
        values.append(total if shares.one is None else total * shares.one)
    finish_run(grad, run, at, values)
