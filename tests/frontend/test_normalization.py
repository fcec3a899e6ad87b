"""The layer `batch_norm`: what it records, how it begins, and mistakes at the user's line."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc import CnncError, Network, batch_norm, conv2d, relu


def test_records_pytorchs_entries_in_their_order() -> None:
    net = Network("n")
    net.output(
        batch_norm(conv2d(net.input(3, 5, 5), 4, 3, bias=False), 1e-3, 0.2, activation=relu, name="bn")
    )
    graph = net.graph()
    assert [node.op.name for node in graph.nodes] == ["conv2d", "batch_norm", "relu"]
    assert graph.nodes[1].op.attributes == {"eps": 1e-3, "momentum": 0.2}
    parts = ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    assert [p.name for p in graph.params] == ["conv2d_1.weight", *parts]
    first = net.initial_weights()
    for part, value in zip(parts, (1, 0, 0, 1), strict=True):
        np.testing.assert_array_equal(first[part], np.full(4, value, np.float32))


def test_features_are_normalized_too() -> None:
    assert batch_norm(Network("n").input(7)).shape == (1, 7)


def test_mistakes_are_named() -> None:
    x = Network("n").input(3, 5, 5)
    with pytest.raises(CnncError, match="eps must be above 0, not 0"):
        batch_norm(x, eps=0)
    with pytest.raises(CnncError, match=r"momentum must be from 0 to 1, not 1\.5"):
        batch_norm(x, momentum=1.5)
    with pytest.raises(CnncError, match="activation must be one such as relu or None"):
        batch_norm(x, activation="relu")  # type: ignore[arg-type]
    with pytest.raises(CnncError, match="momentum must be a finite number"):
        batch_norm(x, momentum=float("nan"))
    x.network.output(batch_norm(x))
    assert len(x.network.graph().nodes) == 1, "a failed call records nothing"
