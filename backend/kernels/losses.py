"""Losses of a batch, their gradients, and the count of right answers; sums run in one fixed order.

A label is compared with every class's number, lane by lane, so nothing is read at a computed address.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cnnc.backend.kernel import math as functions
from cnnc.backend.kernel.builder import KernelBuilder, Vec
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import Body, flat_sum, flat_vectors, reduce_vectors, vectors
from cnnc.backend.kernels.site import Site, declare
from cnnc.backend.kernels.softmax import Row, store_powers
from cnnc.errors import UnsupportedError


def softmax_cross_entropy(site: Site) -> Kernel:
    """loss = the mean over rows of log(sum of exp(x - max x)) - (x - max x)[label]."""

    def loss(k: KernelBuilder, x: Row, label: Vec) -> Vec:
        top = x.maximum()

        def power(start: Affine, count: int) -> Vec:
            return functions.exp(k, x.padded(start, count) - top)

        def right(start: Affine, count: int) -> Vec:
            here = k.index(start, x.lanes)
            return k.compute("select_eq", here, label, x.load(start, count) - top, 0.0)

        total = reduce_vectors(k, x.extent, x.lanes, "add", 0.0, power)
        return functions.log(k, total) - reduce_vectors(k, x.extent, x.lanes, "add", 0.0, right)

    return _sum_rows(site, loss, 1.0 / site.operands[0].shape[0])


def correct_count(site: Site) -> Kernel:
    """The number of rows whose first maximum is at the label."""

    def correct(k: KernelBuilder, x: Row, label: Vec) -> Vec:
        top = x.maximum()

        def place(start: Affine, count: int) -> Vec:
            return k.compute("select_eq", x.padded(start, count), top, k.index(start, x.lanes), math.inf)

        first = k.broadcast(reduce_vectors(k, x.extent, x.lanes, "min", math.inf, place), x.lanes)
        return k.reduce("max", k.compute("select_eq", first, label, 1.0, 0.0))

    return _sum_rows(site, correct, 1.0)


def _sum_rows(site: Site, value: Callable[[KernelBuilder, Row, Vec], Vec], share: float) -> Kernel:
    """A scalar: `share` times the sum over rows of a value, one lane, of logits and label."""
    k = KernelBuilder(site.op.name)
    arguments = declare(k, site)
    (logits, labels), (result,) = arguments.operands, arguments.results
    count, classes = site.operands[0].shape
    lanes = site.lanes(classes)
    total = k.register("loss", 1, (1,))
    with k.loop("row", 0, count) as row:
        x = Row(logits, row, classes, lanes)
        total[0,] = total[0,] + value(k, x, labels.splat((row,), lanes))
    result.store((), total[0,] if share == 1.0 else total[0,] * share)
    return k.build()


def softmax_cross_entropy_grad(site: Site) -> Kernel:
    """dlogits = dloss / N * (softmax(x) - one at the label)."""
    k = KernelBuilder(site.op.name)
    arguments = declare(k, site, read_back=(0,))
    dloss, logits, labels = arguments.operands
    count, classes = site.results[0].shape
    lanes = site.lanes(classes)
    with k.loop("row", 0, count, parallel=True) as row:
        x, y = (Row(handle, row, classes, lanes) for handle in (logits, arguments.results[0]))
        share = dloss.splat((), 1) * (1.0 / count)
        scale = store_powers(k, x, y, share)
        label, one = labels.splat((row,), lanes), k.broadcast(share, lanes)

        def tile(start: Affine, count: int) -> None:
            here = k.index(start, lanes)
            probability = y.load(start, count) * scale
            y.store(start, k.compute("select_eq", here, label, probability - one, probability), count)

        vectors(k, classes, lanes, tile)
    return k.build()


def squared_error(site: Site) -> Kernel:
    """loss = the sum of squared differences over the batch size."""
    k, size = KernelBuilder(site.op.name), _same_order(site)
    lanes = site.lanes(size)
    arguments = declare(k, site, lambda t: (t.size,) if t.type.rank else ())
    prediction, target = arguments.operands

    def square(start: Affine, count: int) -> Vec:
        difference = prediction.load((start,), lanes, count) - target.load((start,), lanes, count)
        return difference * difference

    total = flat_sum(k, size, lanes, square)
    arguments.results[0].store((), total * (1.0 / site.operands[0].shape[0]))
    return k.build()


def squared_error_grad(site: Site) -> Kernel:
    """dprediction = dloss * 2 / N * (prediction - target)."""
    k, size = KernelBuilder(site.op.name), _same_order(site)
    lanes = site.lanes(size)
    arguments = declare(k, site, lambda t: (t.size,) if t.type.rank else ())
    dloss, prediction, target = arguments.operands

    def begin() -> Body:
        scale = dloss.splat((), lanes) * (2.0 / site.results[0].shape[0])

        def tile(start: Affine, count: int) -> None:
            difference = prediction.load((start,), lanes, count) - target.load((start,), lanes, count)
            arguments.results[0].store((start,), difference * scale, count)

        return tile

    flat_vectors(k, size, lanes, begin)
    return k.build()


def _same_order(site: Site) -> int:
    """Elements of prediction and target; raises UnsupportedError if they lie in different orders."""
    full = [tensor for tensor in (*site.operands, *site.results) if tensor.type.rank]
    if any(tensor.order != full[0].order for tensor in full):
        listed = " and ".join(str(tensor.layout) for tensor in full)
        raise UnsupportedError(f"{site.op.name}: the tensors lie in different orders, {listed}")
    return full[0].size
