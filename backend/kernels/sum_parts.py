"""The sum over the first axis of a tensor, over flat memory, with its epilogue."""

from __future__ import annotations

from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Affine, Kernel
from cnnc.backend.kernels.arrays import as_arrays
from cnnc.backend.kernels.loops import Body, flat_vectors
from cnnc.backend.kernels.region import Epilogue, Region, point
from cnnc.backend.kernels.site import Site, declare


def sum_parts(site: Site) -> Kernel:
    """y = the sum of x over its first axis; the rest of x lies as y does."""
    number, size = Region(site).operand(0), site.results[0].size
    parts = site.operands[number].shape[0]
    site = as_arrays(site, (size,), {number: (parts, size)})
    region, lanes = Region(site), site.lanes(size)
    k = KernelBuilder(region.anchor.name)
    arguments = declare(k, site)
    x, epilogue = arguments.operands[number], Epilogue(k, region, arguments)

    def begin() -> Body:
        def tile(start: Affine, count: int) -> None:
            total = x.load((0, start), lanes, count)
            for part in range(1, parts):
                total = total + x.load((part, start), lanes, count)
            epilogue.finish({point(start): total}, count)

        return tile

    flat_vectors(k, size, lanes, begin)
    return k.build()
