"""Activations: layers without parameters, called on a tensor or given to a layer as `activation=`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cnnc.errors import CnncError
from cnnc.frontend.arguments import layer_name
from cnnc.frontend.calls import user_call
from cnnc.frontend.recording import record
from cnnc.frontend.tensor import Tensor
from cnnc.ir.op import Op
from cnnc.ops.elementwise import Relu, Relu6, Sigmoid, Tanh
from cnnc.ops.elementwise import activation as activation_op
from cnnc.ops.scalar import Expr
from cnnc.ops.softmax import LogSoftmax, Softmax


@dataclass(frozen=True)
class Activation:
    """A layer without parameters: called on a tensor, or given to a layer as `activation=`."""

    name: str
    op: Op

    @user_call
    def __call__(self, x: Tensor, name: str | None = None) -> Tensor:
        return record(self.name, name, self.op, x)


relu = Activation("relu", Relu())
relu6 = Activation("relu6", Relu6())
tanh = Activation("tanh", Tanh())
sigmoid = Activation("sigmoid", Sigmoid())
softmax = Activation("softmax", Softmax())
log_softmax = Activation("log_softmax", LogSoftmax())


@user_call
def activation(name: str, function: str | Callable[[Expr], Expr]) -> Activation:
    """Declare an activation by a formula of one variable: `activation("swish", "a * sigmoid(a)")`.

    A Python function such as `lambda a: a * sigmoid(a)`, with the functions of cnnc.ops.scalar,
    serves too. The derivative is derived from it.
    """
    op = activation_op(function)
    if op.arity != 1:
        raise CnncError(f"the formula {op.f!r} has {op.arity} variables; an activation has one")
    return Activation(layer_name(name), op)
