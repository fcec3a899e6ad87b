"""Inference of one digit by LeNet-5 on one thread, from NumPy array to NumPy array."""

from __future__ import annotations

from collections.abc import Mapping

import cnnc
from benchmarks import optional
from benchmarks.agreement import agree
from benchmarks.lenet5 import LIMIT, ImageRival, digits, network
from benchmarks.report import Report, comparison
from benchmarks.rounds import Contestant, measure
from cnnc.ir.types import Array


def lenet5_image(seconds: float) -> Report:
    """Ours beside ONNX Runtime's and PyTorch's, with the same weights on the same image."""
    net = network()
    weights = net.initial_weights()
    image = digits(net, 1)[0]
    model = cnnc.compile(net, weights=weights, cache=False)
    logits = model(image)
    contestants = [Contestant("cnnc", lambda: model(image))]
    notes: list[str] = []
    for rival in _rivals(weights, image, notes):
        worst = agree(rival.name, {"logits": rival.classify()}, {"logits": logits}, LIMIT)
        notes.append(f"{rival.name}: outputs agree within {worst:.1e}")
        contestants.append(Contestant(rival.name, rival.classify))
    title = "LeNet-5 inference of one image, 1 thread"
    return comparison("lenet5-image", title, contestants, measure(contestants, seconds), notes)


def _rivals(weights: Mapping[str, Array], image: Array, notes: list[str]) -> list[ImageRival]:
    rivals: list[ImageRival] = []
    for name, module, *packages in (
        ("ONNX Runtime", "onnx_lenet5", "onnx", "onnxruntime"),
        ("PyTorch", "torch_lenet5", "torch"),
    ):
        found = optional.find(module, *packages)
        if found is None:
            notes.append(optional.missing(name))
        else:
            rivals += found.image_rivals(weights, image)
    return rivals
