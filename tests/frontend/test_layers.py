"""Layers: result shapes, what they record, and mistakes reported at the user's line."""

from __future__ import annotations

import inspect

import pytest

from cnnc import (
    CnncError,
    Network,
    ShapeError,
    Tensor,
    add,
    concat,
    conv2d,
    conv_transpose2d,
    dense,
    dropout,
    flatten,
    max_pool,
    mean_pool,
    position_bias,
    relu,
    sigmoid,
    softmax,
    tanh,
)


def image(*shape: int) -> Tensor:
    return Network("n").input(*shape)


def ops(x: Tensor) -> list[str]:
    x.network.output(x)
    return [n.op.name for n in x.network.graph().nodes]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"kernel": 5}, (1, 6, 28, 28)),
        ({"kernel": 5, "pad": "same"}, (1, 6, 32, 32)),
        ({"kernel": 4, "pad": "same"}, (1, 6, 32, 32)),
        ({"kernel": 3, "pad": "same", "stride": 2}, (1, 6, 16, 16)),
        ({"kernel": (2, 5), "pad": "same", "stride": (3, 5)}, (1, 6, 11, 7)),
        ({"kernel": 1, "pad": "same", "stride": 4}, (1, 6, 8, 8)),
        ({"kernel": 3, "pad": "same", "dilation": (1, 4)}, (1, 6, 32, 32)),
        ({"kernel": (1, 7), "pad": (0, 3)}, (1, 6, 32, 32)),
        ({"kernel": 3, "stride": (2, 3), "pad": (1, 2, 3, 4)}, (1, 6, 17, 12)),
        ({"kernel": 3, "dilation": 9}, (1, 6, 14, 14)),
        ({"kernel": 3, "groups": 3}, (1, 6, 30, 30)),
    ],
)
def test_conv2d_shapes(options: dict[str, object], shape: tuple[int, ...]) -> None:
    assert conv2d(image(3, 32, 32), 6, **options).shape == shape  # type: ignore[arg-type]


def test_conv2d_records_weight_bias_and_activation() -> None:
    y = conv2d(image(4, 5, 5), 6, 3, groups=2, activation=relu, name="c")
    assert ops(y) == ["conv2d", "bias", "relu"]
    assert {p.name: p.type.shape for p in y.network.graph().params} == {
        "c.weight": (6, 2, 3, 3),
        "c.bias": (6,),
    }
    assert ops(conv2d(image(1, 5, 5), 6, 3, bias=False)) == ["conv2d"]


@pytest.mark.parametrize(
    ("size", "options", "pad"),
    [
        # n, k, s, d: TensorFlow's and ONNX's padding, what is odd goes behind
        (32, {"kernel": 3, "stride": 2}, (0, 0, 1, 1)),
        (33, {"kernel": 3, "stride": 2}, (1, 1, 1, 1)),
        (32, {"kernel": 4}, (1, 1, 2, 2)),
        (9, {"kernel": 2, "stride": 4}, (0, 0, 1, 1)),
        (8, {"kernel": 2, "stride": 4}, (0, 0, 0, 0)),
        (7, {"kernel": 3, "dilation": 2, "stride": 2}, (2, 2, 2, 2)),
    ],
)
def test_same_padding(size: int, options: dict[str, int], pad: tuple[int, ...]) -> None:
    y = conv2d(image(1, size, size), 1, pad="same", **options)
    y.network.output(y)
    assert y.network.graph().nodes[0].op.attributes["pad"] == pad


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"kernel": 2, "stride": 2}, (1, 6, 14, 18)),
        ({"kernel": 3, "stride": 2, "pad": 1, "output_pad": 1}, (1, 6, 14, 18)),
        ({"kernel": (3, 4), "stride": (2, 3), "pad": "same"}, (1, 6, 14, 27)),
        ({"kernel": 5, "stride": 2, "pad": "same", "output_pad": 1}, (1, 6, 14, 18)),
        ({"kernel": 3, "pad": (1, 0, 2, 1), "dilation": 2}, (1, 6, 8, 12)),
        ({"kernel": 3, "groups": 2}, (1, 6, 9, 11)),
    ],
)
def test_conv_transpose2d_shapes(options: dict[str, object], shape: tuple[int, ...]) -> None:
    assert conv_transpose2d(image(4, 7, 9), 6, **options).shape == shape  # type: ignore[arg-type]


def test_conv_transpose2d_records_weight_bias_and_activation() -> None:
    y = conv_transpose2d(image(4, 5, 5), 6, 3, stride=2, groups=2, activation=relu, name="c")
    assert ops(y) == ["conv2d_input_grad", "bias", "relu"]
    assert {p.name: p.type.shape for p in y.network.graph().params} == {
        "c.weight": (4, 3, 3, 3),
        "c.bias": (6,),
    }
    unnamed = conv_transpose2d(image(4, 5, 5), 6, 3, bias=False)
    assert ops(unnamed) == ["conv2d_input_grad"]
    assert unnamed.network.graph().nodes[0].layer == "conv_transpose2d_1"


def test_position_bias() -> None:
    y = position_bias(image(2, 3, 5), name="b")
    assert ops(y) == ["position_bias"] and y.shape == (1, 2, 3, 5)
    assert [p.type.shape for p in y.network.graph().params] == [(2, 3, 5)]


def test_dropout_has_a_seed_of_its_own() -> None:
    def seeds(seed: int) -> list[object]:
        net = Network("n", seed=seed)
        net.output(dropout(dropout(net.input(4), 0.25), name="last"))
        return [n.op.attributes["seed"] for n in net.graph().nodes]

    found = [*seeds(0), *seeds(1)]
    assert len(set(found)) == 4 and found[:2] == seeds(0)


def test_other_layers() -> None:
    x = image(2, 8, 6)
    assert max_pool(x, 2).shape == (1, 2, 4, 3)
    assert mean_pool(x, 3, stride=1, pad="same").shape == (1, 2, 8, 6)
    assert mean_pool(x, (2, 3), stride=(1, 3)).shape == (1, 2, 7, 2)
    assert flatten(x).shape == (1, 96)
    assert dense(flatten(x), 10, activation=sigmoid).shape == (1, 10)
    assert add(x, tanh(x)).shape == softmax(x).shape == (1, 2, 8, 6)
    assert repr(x) == "Tensor(f32[1,2,8,6] of n)"


def test_automatic_names_count_and_step_aside() -> None:
    x = image(3)
    dense(x, 3, name="dense_2")
    y = dense(dense(x, 3), 3)
    x.network.output(y)
    assert [n.layer for n in x.network.graph().nodes][::2] == ["dense_2", "dense_1", "dense_3"]


LAYERS = {f.__name__: f for f in (conv2d, conv_transpose2d, dense, dropout, max_pool, position_bias)}


def message(call: str, **names: object) -> str:
    """The text of the error that `call` raises, its file:line checked and removed."""
    scope = {"x": image(3, 8, 8), **LAYERS, **names}
    with pytest.raises(CnncError) as raised:
        exec(compile("\n\n" + call, "user_net.py", "exec"), scope)
    place, _, text = str(raised.value).partition(": ")
    assert place == "user_net.py:3"
    return text


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("dense(x, 10)", "input has shape [1,3,8,8]; flatten it first"),
        ("conv2d(x, 6, 5, strid=2)", "unknown option 'strid'; did you mean 'stride'?"),
        (
            "max_pool(x, 2, border=3)",
            "unknown option 'border'; the options are x, kernel, stride, pad, ceil, name",
        ),
        ("conv2d(x, 6)", "missing a required argument: 'kernel'"),
        ("conv2d(x, 6, 5, kernel=3)", "multiple values for argument 'kernel'"),
        ("conv2d(x, -6, 5)", "maps must be at least 1, not -6"),
        ("conv2d(x, 6.5, 5)", "maps must be a whole number, not 6.5"),
        ("conv2d(x, True, 5)", "maps must be a whole number, not True"),
        ("conv2d(x, 6, (1, 2, 3))", "kernel must be one number or two (vertical, horizontal), not (1, 2, 3)"),
        ("conv2d(x, 6, 3, pad='full')", "pad must be numbers or 'same', not 'full'"),
        ("conv2d(x, 6, 3, pad=(1,))", "pad must be one number, two (vertical, horizontal) or four, not (1,)"),
        ("conv2d(x, 6, 3, pad=-1)", "pad must be at least 0, not -1"),
        ("conv2d(x, 6, 3, groups=2)", "groups=2 must divide the input's 3 channels and the 6 maps"),
        ("conv2d(x, 6, 3, bias=0)", "bias must be True or False, not 0"),
        ("conv2d(x, 6, 3, activation='relu')", "activation must be one such as relu or None, not 'relu'"),
        ("conv2d(x, 6, 3, init='he')", "init must be an initializer such as he or glorot, not 'he'"),
        (
            "max_pool(x, 2, name='-')",
            "a name is made of letters, digits, '_' and single dots between; '-' is not",
        ),
        ("dropout(x, 1.0)", "rate must be at least 0 and below 1, not 1.0"),
        ("position_bias(x, init=0)", "init must be an initializer such as zeros or glorot, not 0"),
        (
            "conv_transpose2d(x, 6, 2, stride=2, output_pad=2)",
            "output_pad (2, 2) must be smaller than the stride (2, 2)",
        ),
        (
            "conv_transpose2d(x, 6, 1, stride=2, pad='same')",
            "pad 'same' needs a kernel (1, 1) at least as large as the stride (2, 2)",
        ),
        (
            "conv_transpose2d(x, 6, 3, pad=5)",
            "the padding (5, 5, 5, 5) leaves nothing of the result: 0x0",
        ),
        ("conv2d(7, 6, 3)", "the input must be a tensor (what a layer or net.input returns), not 7"),
    ],
)
def test_mistakes_name_the_line_the_values_and_the_remedy(call: str, expected: str) -> None:
    assert message(call) == f"{call.partition('(')[0]}: {expected}"


def test_shapes_that_do_not_fit() -> None:
    assert message("conv2d(x, 6, 9)").startswith("conv2d: ")
    assert message("max_pool(x, 2, pad=2)").startswith("max_pool: pad (2,2,2,2) must be smaller")
    assert message("conv2d(flatten(x), 6, 3)", flatten=flatten).endswith("maps [N,C,H,W] are needed")
    different = message("add(x, relu(max_pool(x, 2)))", add=add, relu=relu)
    assert different == "add: the operands have shapes [1,3,8,8] and [1,3,4,4]; they must be equal"
    different = message("concat(x, x, relu(max_pool(x, 2)))", concat=concat, relu=relu)
    assert different == "concat: the operands have shapes [1,3,8,8] and [1,3,4,4]; only channels may differ"
    assert message("concat(x)", concat=concat) == "concat: give two tensors or more; got 1"


def test_layers_of_two_networks_do_not_mix() -> None:
    with pytest.raises(CnncError, match="add: the operands belong to different networks, 'n' and 'm'"):
        add(image(3), Network("m").input(3))
    with pytest.raises(CnncError, match="concat: the operands belong to different networks, 'n' and 'm'"):
        concat(image(3), Network("m").input(3))


def test_channels_and_features_are_joined() -> None:
    x = image(3, 8, 8)
    joined = concat(x, conv2d(x, 5, 1), x)
    assert joined.shape == (1, 11, 8, 8)
    assert concat(flatten(x), flatten(joined)).shape == (1, 14 * 64)


def test_a_name_twice() -> None:
    x = image(3)
    dense(x, 3, name="d")
    with pytest.raises(CnncError, match=r"dense: the name 'd' is used at .*test_layers\.py:\d+ already"):
        dense(x, 3, name="d")


def test_a_failed_call_leaves_the_network_as_it_was() -> None:
    x = image(3, 8, 8)
    for bad in ({"kernel": 9}, {"kernel": 3, "activation": 1}, {"kernel": 3, "bias": 2}):
        with pytest.raises(CnncError):
            conv2d(x, 6, name="c", **bad)  # type: ignore[arg-type]
    assert ops(conv2d(x, 6, 3, name="c")) == ["conv2d", "bias"]


def test_mistakes_inside_a_block_are_placed_inside_it() -> None:
    def block(x: Tensor) -> Tensor:
        return dense(x, 3)

    line = inspect.getsourcelines(block)[1] + 1
    with pytest.raises(ShapeError, match=rf"test_layers\.py:{line}: dense: input has shape"):
        block(image(1, 2, 2))
