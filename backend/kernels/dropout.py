"""The masks of dropout: each element is drawn by its number, so any order gives the same bits."""

from __future__ import annotations

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.loops import Body, flat_vectors
from cnnc.backend.kernels.site import Site, declare
from cnnc.errors import UnsupportedError
from cnnc.ir.layout import CHANNELS_LAST, row_major
from cnnc.ops.dropout import DropoutMask


def dropout_mask(site: Site) -> Kernel:
    """0 where the number drawn is below the rate, else 1 / (1 - rate)."""
    op, (mask,) = site.op, site.results
    assert isinstance(op, DropoutMask)
    order = CHANNELS_LAST if mask.type.rank == 4 else row_major(mask.type.rank)
    if mask.layout != order:
        raise UnsupportedError(f"dropout_mask counts elements in {order}, not {mask.layout}")
    k = KernelBuilder(op.name)
    lanes = site.lanes(mask.size)
    arguments = declare(k, site, lambda t: (t.size,) if t is mask else ())

    def begin() -> Body:
        step = k.compute("round", arguments.operands[0].splat((), 1))

        def tile(start: Affine, count: int) -> None:
            drawn = k.uniform(op.seed, step, start, lanes)
            kept = k.compute("select_lt", drawn, op.rate, 0.0, op.kept)
            arguments.results[0].store((start,), kept, count)

        return tile

    flat_vectors(k, mask.size, lanes, begin)
    return k.build()
