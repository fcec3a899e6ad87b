"""ONNX Runtime and OpenVINO on the networks of the zoo, exported by PyTorch. Imported only where all are
installed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import onnxruntime
import openvino
import torch

from benchmarks.rivals import ONNX_RUNTIME, OPENVINO, ImageRival
from cnnc.ir.types import Array

OPSET = 17


def image_rivals(module: Any, images: Array, threads: int) -> list[ImageRival]:
    """Both on the same exported bytes, with float32 arithmetic and all their graph optimizations."""
    network = exported(module, images)
    return [
        ImageRival(ONNX_RUNTIME, lambda: _onnx_runtime(network, images, threads)),
        ImageRival(OPENVINO, lambda: _openvino(network, images, threads)),
    ]


def exported(module: Any, images: Array) -> bytes:
    """The module in inference mode, for exactly this batch."""
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without dynamo says that it is the old one
        torch.onnx.export(
            module.eval(),
            (torch.from_numpy(images),),
            target,
            input_names=["image"],
            output_names=["result"],
            opset_version=OPSET,
            dynamo=False,
        )
    return target.getvalue()


def _onnx_runtime(network: bytes, images: Array, threads: int) -> Callable[[], Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

    def run() -> Array:
        results: Array = session.run(None, {"image": images})[0]
        return results

    return run


def _openvino(network: bytes, images: Array, threads: int) -> Callable[[], Array]:
    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(core.read_model(network), "CPU", settings).create_infer_request()

    def run() -> Array:
        results: Array = request.infer([images], share_inputs=True, share_outputs=True)[0]
        return results

    return run
