"""Activations: those of the DSL, those users declare, and mistakes in them."""

from __future__ import annotations

import pytest

from cnnc import CnncError, FormatError, Network, Tensor, activation, dense, log_softmax, relu, relu6, softmax
from cnnc.ops.elementwise import Map


def vector(size: int) -> Tensor:
    return Network("n").input(size)


def ops(x: Tensor) -> list[str]:
    x.network.output(x)
    return [n.op.name for n in x.network.graph().nodes]


def test_activations_keep_the_shape() -> None:
    for each in (relu, relu6, softmax, log_softmax):
        y = each(vector(7))
        assert y.shape == (1, 7)
        assert ops(y) == [each.name]


def test_declared_activation_as_option_and_as_function() -> None:
    swish = activation("swish", "a * sigmoid(a)")
    doubled = activation("doubled", lambda v: v * 2.0)
    y = doubled(dense(vector(3), 2, activation=swish))
    assert ops(y) == ["dense", "bias", "map", "map"]
    nodes = y.network.graph().nodes
    assert [n.op for n in nodes[2:]] == [Map("a * sigmoid(a)"), Map("a * 2.0")]
    assert [n.layer for n in nodes[2:]] == ["dense_1", "doubled_1"]


def test_mistakes_in_activations() -> None:
    with pytest.raises(FormatError, match=r"test_activations\.py:\d+: activation: "):
        activation("broken", "a *")
    with pytest.raises(CnncError, match="has 2 variables; an activation has one"):
        activation("two", "a * b")
    with pytest.raises(CnncError, match="relu: unknown option 'nam'; did you mean 'name'"):
        relu(vector(3), nam="r")  # type: ignore[call-arg]
