"""LeNet-5 for ONNX Runtime, as examples/lenet5.py declares it. Imported only where onnx is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.lenet5 import ImageRival
from cnnc.ir.types import Array


def image_rivals(weights: Mapping[str, Array], image: Array) -> list[ImageRival]:
    """ONNX Runtime on one thread with all its graph optimizations (its default)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        _model(weights).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def classify() -> Array:
        logits: Array = session.run(None, {"image": image})[0]
        return logits

    return [ImageRival("ONNX Runtime", classify)]


def _model(weights: Mapping[str, Array]) -> Any:
    nodes = [
        *_layer("Conv", "c1", "image"),
        helper.make_node("AveragePool", ["c1.y"], ["s2.y"], kernel_shape=[2, 2], strides=[2, 2]),
        *_layer("Conv", "c3", "s2.y"),
        helper.make_node("AveragePool", ["c3.y"], ["s4.y"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["s4.y"], ["flat"]),
        *_layer("Gemm", "c5", "flat", transB=1),
        *_layer("Gemm", "f6", "c5.y", transB=1),
        helper.make_node("Gemm", ["f6.y", "output.weight", "output.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "lenet5",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _layer(kind: str, name: str, operand: str, **attributes: int) -> list[Any]:
    """A layer with its bias, and the tanh behind it."""
    operands = [operand, f"{name}.weight", f"{name}.bias"]
    return [
        helper.make_node(kind, operands, [f"{name}.z"], **attributes),
        helper.make_node("Tanh", [f"{name}.z"], [f"{name}.y"]),
    ]
