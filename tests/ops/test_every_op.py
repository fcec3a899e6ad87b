"""What every op must keep, over all samples of all ops: its type rule, its reference, its derivative."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest

from cnnc.errors import CnncError, ShapeError, UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.evaluate import evaluate_values
from cnnc.ir.graph import Graph, Value
from cnnc.ir.op import Op, Sample
from cnnc.ir.types import Array, TensorType
from cnnc.ops import OPS
from cnnc.ops.samples import random_operands

WITHOUT_DERIVATIVE = {
    *("max_pool2d_grad", "softmax_grad", "log_softmax_grad", "softmax_cross_entropy_grad"),
    *("dilate2d", "fused", "partial_weight_grad"),
    *("winograd_weights", "winograd_conv2d", "inline_winograd_conv2d", "winograd_weight_grad"),
    *("partial_winograd_weight_grad", "partial_strassen_weight_grad"),
    *("strassen_weights", "strassen_conv2d", "strassen_weight_grad"),
    *("batch_moments", "merge_moments", "batch_norm_sums", "scale_maps"),
}
VARIADIC = {"concat"}
ANY_DTYPE = {"flatten", "reshape", "relayout"}
STEP = 1e-5


def over_samples(keep: Callable[[Sample], bool] = lambda _: True) -> pytest.MarkDecorator:
    """Runs a test for every sample of every op that `keep` keeps."""
    found = [(f"{name}-{i}", s) for name, op in OPS.items() for i, s in enumerate(op.samples()) if keep(s)]
    return pytest.mark.parametrize("sample", [s for _, s in found], ids=[name for name, _ in found])


def differentiable(sample: Sample) -> bool:
    return bool(sample.operands) and sample.op.name not in WITHOUT_DERIVATIVE


def rng_for(sample: Sample) -> np.random.Generator:
    """A generator that depends on the sample only, so that a failure repeats."""
    return np.random.default_rng(zlib.crc32(repr(sample).encode()))


def test_names_are_those_of_the_classes() -> None:
    assert all(op.name == name for name, op in OPS.items())
    assert all(any(True for _ in op.samples()) for op in OPS.values())


@over_samples()
@pytest.mark.parametrize("floats", [np.float32, np.float64])
def test_reference_has_the_inferred_types(sample: Sample, floats: type) -> None:
    operands = random_operands(sample, rng_for(sample), floats)
    before = [x.copy() for x in operands]
    types = sample.op.infer(*sample.operands)
    results = sample.op.reference(*operands)
    assert [r.shape for r in results] == [t.shape for t in types]
    if operands:
        assert [r.dtype for r in results] == [np.dtype(floats)] * len(types)
    for x, old in zip(operands, before, strict=True):
        np.testing.assert_array_equal(x, old, "the reference changed its operand")


@over_samples()
def test_float32_agrees_with_float64(sample: Sample) -> None:
    operands = random_operands(sample, rng_for(sample))
    exact = sample.op.reference(*(x.astype(np.float64) if x.dtype == np.float32 else x for x in operands))
    for single, double in zip(sample.op.reference(*operands), exact, strict=True):
        np.testing.assert_allclose(single, double, rtol=0, atol=1e-5 * max(1.0, np.abs(double).max()))


@over_samples()
def test_wrong_operand_counts_are_shape_errors(sample: Sample) -> None:
    with pytest.raises(ShapeError):
        sample.op.infer(*sample.operands, TensorType("f32", (2,)))
    if sample.operands:
        with pytest.raises(ShapeError):
            sample.op.infer(*sample.operands[: 1 if sample.op.name in VARIADIC else -1])


@over_samples(lambda sample: bool(sample.operands) and sample.op.name not in ANY_DTYPE)
def test_integers_where_floats_belong_are_shape_errors(sample: Sample) -> None:
    with pytest.raises(ShapeError):
        sample.op.infer(*(TensorType("i32", t.shape) for t in sample.operands))


@pytest.mark.parametrize("name", sorted(WITHOUT_DERIVATIVE))
def test_ops_without_derivative_say_so(name: str) -> None:
    for sample in OPS[name].samples():
        with pytest.raises(UnsupportedError, match=f"{name} has no derivative"):
            gradient_graph(sample.op, sample.operands)


@over_samples(differentiable)
def test_gradients_have_the_types_of_the_operands(sample: Sample) -> None:
    graph, grads = gradient_graph(sample.op, sample.operands)
    assert len(grads) == len(sample.operands)
    for grad, operand in zip(grads, sample.operands, strict=True):
        assert grad is None or grad.type == operand
        assert grad is None or operand.dtype == "f32", "no gradient flows to integers"
    assert graph.params == ()


@over_samples(differentiable)
def test_gradients_agree_with_central_differences(sample: Sample) -> None:
    rng = rng_for(sample)
    operands = random_operands(sample, rng, np.float64)
    results = sample.op.reference(*operands)
    weights = [rng.uniform(0.5, 1.5, r.shape) for r in results]
    grads = analytic_gradients(sample, operands, weights)

    def weighted(*xs: Array) -> float:
        return sum(float((w * r).sum()) for w, r in zip(weights, sample.op.reference(*xs), strict=True))

    for index, (x, grad) in enumerate(zip(operands, grads, strict=True)):
        if x.dtype != np.float64:
            continue
        direction = rng.standard_normal(x.shape)
        numeric = central_difference(weighted, operands, index, direction)
        analytic = 0.0 if grad is None else float((grad * direction).sum())
        assert abs(numeric - analytic) <= 1e-6 * max(abs(numeric), abs(analytic)) + 1e-9


def central_difference(
    f: Callable[..., float], operands: tuple[Array, ...], index: int, direction: Array
) -> float:
    """Slope of f along `direction` in operand `index`."""
    ahead, behind = list(operands), list(operands)
    ahead[index] = operands[index] + STEP * direction
    behind[index] = operands[index] - STEP * direction
    return (f(*ahead) - f(*behind)) / (2 * STEP)


def gradient_graph(op: Op, types: tuple[TensorType, ...]) -> tuple[Graph, list[Value | None]]:
    """A graph of the op and its derivative; inputs x0, x1, ... and dy0, dy1, ..."""
    builder = GraphBuilder("gradient")
    operands = [builder.input(f"x{i}", t) for i, t in enumerate(types)]
    results = builder.emit_all(op, *operands)
    result_grads = [builder.input(f"dy{i}", r.type) for i, r in enumerate(results)]
    grads = list(op.grad(builder, operands, results, result_grads))
    return builder.build([g for g in grads if g is not None]), grads


def analytic_gradients(
    sample: Sample, operands: tuple[Array, ...], weights: list[Array]
) -> list[Array | None]:
    graph, grads = gradient_graph(sample.op, sample.operands)
    feeds = {f"x{i}": x for i, x in enumerate(operands)} | {f"dy{i}": w for i, w in enumerate(weights)}
    values = evaluate_values(graph, feeds)
    return [None if g is None else values[g.name] for g in grads]


def test_an_error_in_a_graph_names_the_op() -> None:
    builder = GraphBuilder("g")
    x = builder.input("x", TensorType("f32", (1, 3, 8, 8)))
    w = builder.input("w", TensorType("f32", (6, 4, 3, 3)))
    with pytest.raises(CnncError, match=r"^conv2d: input has 3 channels, the weight expects 4$"):
        builder.emit(OPS["conv2d"](), x, w)
