"""What layer functions share: the checks of their tensors, and how a layer of one op is recorded."""

from __future__ import annotations

from cnnc.errors import CnncError, ShapeError
from cnnc.frontend.tensor import Tensor
from cnnc.ir.op import Op


def record(kind: str, name: str | None, op: Op, *operands: Tensor) -> Tensor:
    """Record a layer of one op without parameters."""
    values = [checked(x).value for x in operands]
    op.infer(*(v.type for v in values))
    network = operands[0].network
    return Tensor(network.layer(kind, name).emit(op, *values), network)


def checked(x: Tensor, rank: int | None = None) -> Tensor:
    """`x`, which must be a tensor, of that rank if one is given."""
    if not isinstance(x, Tensor):
        raise CnncError(f"the input must be a tensor (what a layer or net.input returns), not {x!r}")
    if rank is None or len(x.shape) == rank:
        return x
    if rank == 2:
        raise ShapeError(f"input has shape {shown(x)}; flatten it first")
    raise ShapeError(f"input has shape {shown(x)}; maps [N,C,H,W] are needed")


def check_network(first: Tensor, *others: Tensor) -> None:
    for other in others:
        if checked(first).network is not checked(other).network:
            names = f"{first.network.name!r} and {other.network.name!r}"
            raise CnncError(f"the operands belong to different networks, {names}")


def shown(x: Tensor) -> str:
    return f"[{','.join(map(str, x.shape))}]"
