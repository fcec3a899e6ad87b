"""Optimizers: three steps by their formulas against the update rules written out as PyTorch does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

from cnnc.errors import CnncError
from cnnc.ir.types import Array
from cnnc.ops.optimizer import SGD, Adam, Optimizer
from cnnc.ops.scalar import evaluate, variables
from cnnc.ops.scalar_text import parse_expr

RNG = np.random.default_rng(5)
WEIGHT = RNG.standard_normal((3, 4))
GRADIENTS = RNG.standard_normal((4, 3, 4))
OPTIMIZERS = (
    SGD(),
    SGD(lr=0.1, weight_decay=1e-2),
    SGD(lr=0.1, momentum=0.9),
    SGD(lr=0.1, momentum=0.9, weight_decay=1e-2),
    Adam(),
    Adam(lr=0.01, beta1=0.8, beta2=0.99, eps=1e-3, weight_decay=0.1),
)


def weights(optimizer: Optimizer) -> Iterator[Array]:
    """The weight after each step, by the optimizer's own formulas."""
    values: dict[str, Array] = {"p": WEIGHT, "lr": np.asarray(optimizer.lr)}
    for state in optimizer.states():
        shape = WEIGHT.shape if state.per_tensor else ()
        values[state.name] = np.full(shape, state.initial)
    for gradient in GRADIENTS:
        values["g"] = gradient
        for step in optimizer.steps():
            values[step.target] = evaluate(parse_expr(step.f), values)
        yield values["p"]


def torch_sgd(o: SGD) -> Iterator[Array]:
    p, buffer = WEIGHT.copy(), None
    for gradient in GRADIENTS:
        g = gradient + o.weight_decay * p
        if o.momentum:
            buffer = g.copy() if buffer is None else o.momentum * buffer + g
            g = buffer
        p = p - o.lr * g
        yield p


def torch_adam(o: Adam) -> Iterator[Array]:
    p, m, v = WEIGHT.copy(), np.zeros_like(WEIGHT), np.zeros_like(WEIGHT)
    for t, gradient in enumerate(GRADIENTS, start=1):
        g = gradient + o.weight_decay * p
        m = m + (g - m) * (1 - o.beta1)
        v = o.beta2 * v + (1 - o.beta2) * g * g
        denominator = np.sqrt(v) / math.sqrt(1 - o.beta2**t) + o.eps
        p = p - o.lr / (1 - o.beta1**t) * m / denominator
        yield p


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_steps_agree_with_the_written_out_rule(optimizer: SGD | Adam) -> None:
    rule = torch_sgd(optimizer) if isinstance(optimizer, SGD) else torch_adam(optimizer)
    for ours, expected in zip(weights(optimizer), rule, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_formulas_read_what_an_assignment_may_read(optimizer: Optimizer) -> None:
    states: Mapping[str, bool] = {s.name: s.per_tensor for s in optimizer.states()}
    for step in optimizer.steps():
        read = set(variables(parse_expr(step.f)))
        assert step.target == "p" or step.target in states
        assert read <= {"p", "g", "lr", *states}
        if not states.get(step.target, True):
            assert read <= {name for name, per_tensor in states.items() if not per_tensor}
    assert optimizer.steps()[-1].target == "p"


def test_states() -> None:
    assert SGD().states() == ()
    assert [s.name for s in SGD(momentum=0.9).states()] == ["m"]
    assert [(s.name, s.per_tensor) for s in Adam().states()] == [
        ("m", True),
        ("v", True),
        ("beta1_power", False),
        ("beta2_power", False),
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: SGD(lr=-1), "SGD: lr must be finite and not negative, got -1"),
        (lambda: SGD(lr=float("nan")), "SGD: lr must be finite and not negative, got nan"),
        (lambda: SGD(momentum=1.0), r"SGD: momentum must be below 1, got 1\.0"),
        (lambda: Adam(beta2=1.5), r"Adam: beta2 must be below 1, got 1\.5"),
    ],
)
def test_wrong_numbers_are_refused(wrong: Callable[[], Optimizer], message: str) -> None:
    with pytest.raises(CnncError, match=message):
        wrong()
