"""The kernels of a network, each written and proven once, whichever of its functions calls it.

backend/lower.py asks for the kernel of every site; whoever compiles kernels hears of each new one at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cnnc.backend.images import images_lie_apart
from cnnc.backend.kernel.image_bounds import prove_images
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.kernels.registry import Proof, proven_kernel
from cnnc.backend.kernels.site import Site, Tensor
from cnnc.backend.target import Target
from cnnc.errors import VerifyError
from cnnc.ir.location import UNKNOWN, Location
from cnnc.ir.op import Op

Listener = Callable[[Kernel], None]
"""Hears of kernels."""

_Key = tuple[Op, tuple[Tensor, ...], tuple[tuple[int, int], ...], Target, int, bool, tuple[bool, ...]]
"""What decides a kernel, and what is proven of it."""


def heard_by_nobody(kernel: Kernel) -> None:
    """The listener where nobody needs to know."""


class ProvenKernels:
    """Equal sites share a kernel, and so do sites whose kernels come out equal. `listener` hears of each
    kernel once."""

    def __init__(self, listener: Listener = heard_by_nobody) -> None:
        self._listener = listener
        self._by_site: dict[_Key, tuple[Kernel, Proof]] = {}
        self._kernels: dict[Kernel, Kernel] = {}

    def of(self, site: Site, holding: tuple[bool, ...] = (), loc: Location = UNKNOWN) -> tuple[Kernel, Proof]:
        """The site's kernel; `holding` says which of its arguments hold images.

        Raises UnsupportedError, placed at `loc`, where there is none.
        """
        tensors, in_place = (*site.operands, *site.results), tuple(sorted(site.in_place.items()))
        key = (site.op, tensors, in_place, site.target, site.images, site.exact_images, holding)
        found = self._by_site.get(key)
        if found is None:
            kernel, proof = proven_kernel(site, loc)
            check_images(kernel, site, holding)
            found = self._by_site[key] = self._shared(kernel), proof
        return found

    def _shared(self, kernel: Kernel) -> Kernel:
        """The first of the kernels equal to this one."""
        first = self._kernels.setdefault(kernel, kernel)
        if first is kernel:
            self._listener(kernel)
        return first


def check_images(kernel: Kernel, site: Site, holding: Sequence[bool]) -> None:
    """Raise VerifyError if a site's kernel touches images that it must not; `holding` says which of its
    arguments hold images."""
    loop = kernel.image_loop
    if site.exact_images and (loop is None or loop.images != 1):
        raise VerifyError(f"kernel {kernel.name}: no loop over single images, but arguments of the caller")
    if loop is not None:
        names = [buffer.name for buffer, has in zip(kernel.arguments, holding, strict=True) if has]
        own = [t for i, t in enumerate(site.results) if i not in site.in_place]
        tensors = zip((*site.operands, *own), holding, strict=True)
        if any(has and not images_lie_apart(tensor.layout) for tensor, has in tensors):
            raise VerifyError(f"kernel {kernel.name}: images lie among each other")
        prove_images(kernel, loop, site.images, names)
