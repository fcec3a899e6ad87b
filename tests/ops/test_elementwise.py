"""Elementwise ops: broadcasting, the derivatives they emit, activations declared in one line."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc.errors import FormatError, ShapeError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType, f32
from cnnc.ops.elementwise import (
    Add,
    Bias,
    Elementwise,
    Map,
    Mul,
    Relu,
    Relu6,
    Sigmoid,
    Sub,
    Tanh,
    activation,
    emit_expr,
)
from cnnc.ops.reduce import Sum
from cnnc.ops.scalar import Var, exp, maximum, select_lt, sigmoid
from cnnc.ops.scalar_text import parse_expr


def gradients(op: Op, *types: TensorType) -> tuple[Graph, list[str | None]]:
    """Graph of `op` and its derivative, and the name of each operand's gradient."""
    builder = GraphBuilder("g")
    operands = [builder.input(name, t) for name, t in zip("abc", types, strict=False)]
    y = builder.emit(op, *operands, name="y")
    dy = builder.input("dy", y.type)
    grads = op.grad(builder, operands, [y], [dy])
    return builder.build([]), [g.name if g else None for g in grads]


def emitted(graph: Graph) -> list[tuple[Op, tuple[str, ...]]]:
    """Ops and operand names behind the forward op."""
    return [(n.op, tuple(o.name for o in n.operands)) for n in graph.nodes[1:]]


@pytest.mark.parametrize(
    ("op", "formula"),
    [
        (Relu(), "select(0.0 < b, a, 0.0)"),
        (Relu6(), "a * select(0.0 < b, select(b < 6.0, 1.0, 0.0), 0.0)"),
        (Tanh(), "a * (1.0 - b * b)"),
        (Sigmoid(), "a * (b * (1.0 - b))"),
    ],
)
def test_activations_are_differentiated_through_their_result(op: Elementwise, formula: str) -> None:
    graph, _ = gradients(op, f32(2, 3))
    assert emitted(graph) == [(Map(formula), ("dy", "y"))]


def test_a_derivative_that_needs_the_operand_reads_it() -> None:
    graph, _ = gradients(Map("a * sigmoid(a)"), f32(2, 3))
    ((_, operands),) = emitted(graph)
    assert operands == ("dy", "a")


def test_adding_passes_the_gradient_through() -> None:
    graph, grads = gradients(Add(), f32(2, 3), f32(2, 3))
    assert (emitted(graph), grads) == ([], ["dy", "dy"])


def test_subtraction_negates_once() -> None:
    graph, grads = gradients(Sub(), f32(2, 3), f32(2, 3))
    assert emitted(graph) == [(Map("-a"), ("dy",))]
    assert grads[0] == "dy"


def test_product_reads_the_other_factor() -> None:
    graph, _ = gradients(Mul(), f32(2, 3), f32(2, 3))
    assert emitted(graph) == [(Map("a * b"), ("dy", "b")), (Map("a * b"), ("dy", "a"))]


def test_channel_and_scalar_operands_are_summed_over() -> None:
    graph, _ = gradients(Bias(), f32(2, 3, 5, 5), f32(3))
    assert emitted(graph) == [(Sum((0, 2, 3)), ("dy",))]
    graph, _ = gradients(Add(), f32(2, 3), f32())
    assert emitted(graph) == [(Sum((0, 1)), ("dy",))]


def test_an_operand_that_does_not_matter_has_no_gradient() -> None:
    _, grads = gradients(Map("select(a < 0.0, 0.0 * b, c)"), *(f32(2, 3),) * 3)
    assert grads[0] is None and grads[1] is None and grads[2] is not None


def test_broadcasting() -> None:
    x, per_channel, scalar = np.arange(12.0).reshape(1, 3, 2, 2), np.array([10.0, 20.0, 30.0]), np.array(0.5)
    (y,) = Map("(a + b) * c").reference(x, per_channel, scalar)
    np.testing.assert_array_equal(y, (x + per_channel[None, :, None, None]) * 0.5)
    (repeated,) = Map("b").reference(x, per_channel)
    assert repeated.shape == x.shape and (repeated[0, 1] == 20).all()


@pytest.mark.parametrize(
    "new",
    [
        activation("x * sigmoid(x)"),
        activation(lambda x: x * sigmoid(x)),
        Map("a*sigmoid( a )"),
    ],
)
def test_an_activation_in_one_line(new: Map) -> None:
    assert new == Map("a * sigmoid(a)")
    assert new.f == "a * sigmoid(a)"


def test_an_activation_of_two_operands_takes_them_in_order() -> None:
    assert activation(lambda x, gate: sigmoid(gate) * x) == Map("sigmoid(b) * a")
    assert activation("y - x") == Map("b - a")
    assert activation(lambda x: select_lt(x, 0, exp(x) - 1.0, maximum(x, 0))).arity == 1


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("a + alpha", "'alpha' is no operand; operands are a, b, ... x"),
        ("a + y", "'y' is no operand"),
        ("relu(a)", "unknown function 'relu'"),
        ("a +", "expected a value"),
    ],
)
def test_bad_formulas(formula: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Map(formula)


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (
            Add(),
            (f32(1, 6, 4, 4), f32(5)),
            r"operand b is f32\[5\]; it must be f32\[1,6,4,4\], f32\[6\] \(one per channel\)",
        ),
        (Add(), (f32(4), f32(5)), r"operand b is f32\[5\]; it must be f32\[4\] or a scalar"),
        (Add(), (f32(4),), r"takes 2 operands \(operand a, operand b\), got 1"),
        (
            Add(),
            (f32(4), TensorType("f64", (4,))),
            r"got f32\[4\] as the operand a, f64\[4\] as the operand b: dtypes",
        ),
        (
            Relu(),
            (TensorType("i32", (4,)),),
            r"got i32\[4\] as the operand a, which must hold floating-point numbers",
        ),
        (Bias(), (f32(1, 6, 4, 4), f32(5)), r"the input has 6 channels, the bias is f32\[5\]"),
        (Bias(), (f32(1, 6), f32()), r"the input has 6 channels, the bias is f32\[\]"),
        (Bias(), (f32(6), f32(6)), "must have a batch and a channel axis"),
    ],
)
def test_shape_errors(op: Op, types: tuple[TensorType, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*types)


def test_emit_expr_puts_the_operand_of_the_results_shape_first() -> None:
    builder = GraphBuilder("g")
    p, g, lr = builder.input("p", f32(3, 2)), builder.input("g", f32(3, 2)), builder.input("lr", f32())
    y = emit_expr(builder, parse_expr("lr * g - p"), {"p": p, "g": g, "lr": lr})
    graph = builder.build([y])
    assert [(n.op, n.operands) for n in graph.nodes] == [(Map("c * b - a"), (p, g, lr))]
    assert emit_expr(builder, Var("p"), {"p": p}) is p
