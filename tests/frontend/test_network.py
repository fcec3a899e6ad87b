"""What a Network hands the compiler: graphs, inputs, first weights; and its own mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from cnnc import (
    SGD,
    Adam,
    CnncError,
    InputSpec,
    Network,
    ShapeError,
    conv2d,
    dense,
    flatten,
    glorot,
    mean_pool,
    relu,
    softmax,
    softmax_cross_entropy,
    squared_error,
    tanh,
)
from cnnc.ir.printer import print_graph
from cnnc.ir.types import TensorType, f32

THIS = "test_network.py"


def small() -> Network:
    """1 @ 8x8 -> 2 @ 6x6 -> 2 @ 3x3 -> 4 classes."""
    net = Network("small", seed=7)
    x = conv2d(net.input(1, 8, 8), 2, 3, activation=tanh, name="c1")
    net.output(dense(flatten(mean_pool(x, 2)), 4, name="classes"))
    return net


def trained() -> Network:
    net = small()
    net.loss(softmax_cross_entropy)
    return net


def test_forward_graph_has_batch_1_and_the_users_names() -> None:
    graph = small().graph()
    assert [(v.name, v.type) for v in graph.inputs] == [("image", f32(1, 1, 8, 8))]
    assert [(v.name, v.type) for v in graph.outputs] == [("classes", f32(1, 4))]
    assert {p.name: p.type.shape for p in graph.params} == {
        "c1.weight": (2, 1, 3, 3),
        "c1.bias": (2,),
        "classes.weight": (4, 18),
        "classes.bias": (4,),
    }


def test_nodes_carry_layer_and_line() -> None:
    nodes = small().graph().nodes
    assert [(n.op.name, n.layer) for n in nodes] == [
        ("conv2d", "c1"),
        ("bias", "c1"),
        ("tanh", "c1"),
        ("mean_pool2d", "mean_pool_1"),
        ("flatten", "flatten_1"),
        ("dense", "classes"),
        ("bias", "classes"),
    ]
    first = small.__code__.co_firstlineno
    assert [n.loc.line - first for n in nodes] == [3, 3, 3, 4, 4, 4, 4]
    assert all(n.loc.file.endswith(THIS) for n in nodes)


def test_the_same_declaration_gives_the_same_graph() -> None:
    assert print_graph(small().graph()) == print_graph(small().graph())


def test_loss_graph_of_softmax_cross_entropy() -> None:
    net = trained()
    graph = net.loss_graph()
    assert [(v.name, v.type) for v in graph.inputs[1:]] == [("labels", TensorType("i32", (1,)))]
    assert [(v.name, v.type) for v in graph.outputs] == [("loss", f32()), ("correct", f32())]
    assert graph.nodes[: len(net.graph().nodes)] == net.graph().nodes
    assert {n.layer for n in graph.nodes[-2:]} == {"loss"}
    assert net.classes == 4


def test_loss_graph_of_squared_error() -> None:
    net = small()
    net.loss(squared_error)
    graph = net.loss_graph()
    assert [(v.name, v.type) for v in graph.inputs[1:]] == [("target", f32(1, 4))]
    assert [v.name for v in graph.outputs] == ["loss"]
    assert net.classes is None


def test_loss_of_a_tensor_that_is_no_output() -> None:
    net = Network("n")
    logits = dense(net.input(3), 4)
    net.output(softmax(logits), name="probabilities")
    net.loss(softmax_cross_entropy, of=logits)
    assert net.loss_graph().nodes[-2].operands[0] == logits.value


def test_inputs_keep_scale_and_shift() -> None:
    net = Network("n")
    net.input(3, 4, 5, scale=0.5, shift=-1)
    net.input(7, name="extra")
    assert net.inputs == (InputSpec("image", (3, 4, 5), 0.5, -1.0), InputSpec("extra", (7,)))


def test_output_names() -> None:
    net = Network("n")
    x = net.input(3)
    net.output(dense(x, 1, name="lr"))  # kept for training, so not taken over
    net.output(dense(x, 1, name="3a.1x1"))  # no identifier
    net.output(dense(x, 1))
    net.output(dense(x, 1, name="head"), name="score")
    assert [v.name for v in net.graph().outputs] == ["output", "output_2", "dense_1", "score"]


def test_first_weights_depend_on_seed_and_name_alone() -> None:
    weights = small().initial_weights()
    net = Network("longer", seed=7)
    x = relu(conv2d(net.input(1, 8, 8), 1, 3, pad=1, name="c0"))
    conv2d(x, 2, 3, name="c1")
    np.testing.assert_array_equal(weights["c1.weight"], net.initial_weights()["c1.weight"])
    assert not np.array_equal(weights["c1.weight"], small().initial_weights(seed=8)["c1.weight"])
    assert all(w.dtype == np.float32 for w in weights.values())
    assert not weights["c1.bias"].any()


def test_init_of_the_network_serves_layers_without_their_own() -> None:
    net = Network("n", init=glorot)
    dense(net.input(600), 1, name="d")
    assert np.abs(net.initial_weights()["d.weight"]).max() <= np.sqrt(6 / 601)


def test_initializer_of_a_wrong_shape() -> None:
    net = Network("n")
    dense(net.input(2), 3, init=lambda shape, generator: np.zeros(5), name="d")
    with pytest.raises(CnncError, match=r"d\.weight returned shape \(5,\), expected \(3, 2\)"):
        net.initial_weights()


def test_incomplete_networks_are_reported_at_their_own_line() -> None:
    net = Network("empty")
    line = f"{THIS}:{test_incomplete_networks_are_reported_at_their_own_line.__code__.co_firstlineno + 1}"
    with pytest.raises(CnncError, match=rf"{line}: network 'empty' has no input; declare it with net\.input"):
        net.graph()
    x = dense(net.input(3), 4)
    with pytest.raises(CnncError, match=rf"{line}: network 'empty' has no output; .*net\.output\(tensor\)"):
        net.graph()
    net.output(x)
    with pytest.raises(CnncError, match=rf"{line}: network 'empty' has no loss; .*net\.loss"):
        net.loss_graph()


def test_optimizers() -> None:
    assert Network("n", optimizer=Adam(lr=0.5)).optimizer.lr == 0.5
    with pytest.raises(
        CnncError, match=r"\.py:\d+: SGD: unknown option 'momentun'; did you mean 'momentum'\?"
    ):
        SGD(lr=0.1, momentun=0.9)  # type: ignore[call-arg]
    with pytest.raises(CnncError, match=r"\.py:\d+: SGD: lr must be"):
        SGD(lr=-1)
    with pytest.raises(CnncError, match=r"Network: optimizer must be one such as SGD\(lr=0.1\), not 'sgd'"):
        Network("n", optimizer="sgd")  # type: ignore[arg-type]


def test_mistakes_of_networks() -> None:
    with pytest.raises(CnncError, match=r"\.py:\d+: Network: a name is made of letters"):
        Network("two words")
    with pytest.raises(CnncError, match="Network: seed must be at least 0, not -1"):
        Network("n", seed=-1)
    with pytest.raises(CnncError, match="Network: unknown option 'sed'; did you mean 'seed'"):
        Network("n", sed=1)  # type: ignore[call-arg]


def test_mistakes_of_inputs() -> None:
    net = Network("n")
    with pytest.raises(CnncError, match=r"input: give channels, height and width, or features alone; got 2"):
        net.input(28, 28)
    with pytest.raises(CnncError, match="input: a size must be at least 1, not 0"):
        net.input(1, 0, 28)
    with pytest.raises(CnncError, match="input: unknown option 'scal'; did you mean 'scale'"):
        net.input(3, scal=2)  # type: ignore[call-arg]
    with pytest.raises(CnncError, match="input: scale must be a finite number, not nan"):
        net.input(3, scale=float("nan"))
    with pytest.raises(CnncError, match="input: the name 'labels' is kept for training"):
        net.input(3, name="labels")
    net.input(3)
    with pytest.raises(CnncError, match="input: the name 'features' is an input's or output's already"):
        net.input(4)


def test_mistakes_of_outputs() -> None:
    net = Network("n")
    x = net.input(3)
    y = dense(x, 2)
    with pytest.raises(CnncError, match="output: 'features' is an input"):
        net.output(x)
    with pytest.raises(CnncError, match=r"output: a tensor .* is needed, not 3"):
        net.output(3)  # type: ignore[arg-type]
    with pytest.raises(CnncError, match="output: the tensor belongs to network 'n', not to 'other'"):
        Network("other").output(y)
    net.output(y, name="y")
    with pytest.raises(CnncError, match="output: this tensor is an output already"):
        net.output(y)
    with pytest.raises(CnncError, match="output: the name 'y' is an input's or output's already"):
        net.output(dense(x, 2), name="y")


def test_mistakes_of_losses() -> None:
    net = Network("n")
    x = net.input(1, 4, 4)
    with pytest.raises(CnncError, match="loss: the network has 0 outputs so far"):
        net.loss(softmax_cross_entropy)
    with pytest.raises(
        CnncError, match="loss: loss must be softmax_cross_entropy or squared_error, not 'mse'"
    ):
        net.loss("mse")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="loss: "):
        net.loss(softmax_cross_entropy, of=relu(x))
    with pytest.raises(CnncError, match="applies softmax itself"):
        net.loss(softmax_cross_entropy, of=softmax(flatten(x)))
    net.loss(squared_error, of=relu(x))
    with pytest.raises(CnncError, match="loss: the network has the loss squared_error already"):
        net.loss(squared_error, of=relu(x))
