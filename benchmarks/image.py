"""Inference of one network, from NumPy arrays to NumPy arrays, beside PyTorch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

from collections.abc import Callable

import cnnc
from benchmarks import optional
from benchmarks.agreement import agree
from benchmarks.contest import Call, Comparison, Entrant, Settings, contest
from benchmarks.instruction_set import HOST
from benchmarks.rivals import ONNX_RUNTIME, ImageRival
from benchmarks.zoo import Entry, calibration_images, sample
from cnnc.ir.types import Array

LIMIT = 1e-3
"""Outputs of two systems must lie closer together, relative to the largest."""
ONNX = ("onnx", "onnxruntime", "openvino", "torch")


def images_compared(entry: Entry, batch: int, threads: int, settings: Settings) -> Comparison:
    """Ours and theirs, with the same weights on the same images."""
    title = f"{entry.title}, {batch} image{'s' * (batch > 1)}, {threads} thread{'s' * (threads > 1)}"
    settings.progress.say(f"{title}: cnnc compiles")
    net = entry.declare(entry.size)
    images, _ = sample(net, batch)
    missing: list[str] = []
    rivals: list[ImageRival] = []
    state = net.initial_weights()
    if (torch_zoo := optional.find("torch_zoo", "torch")) is None:
        missing.append(optional.missing("PyTorch"))
    else:
        module = torch_zoo.module(entry, entry.size, calibration_images(net))
        state = torch_zoo.weights(module)
        rivals += torch_zoo.image_rivals(entry, state, images, threads, settings.compile_limit > 0)
        if (onnx_zoo := optional.find("onnx_zoo", *ONNX)) is None:
            missing.append(optional.missing("ONNX Runtime and OpenVINO"))
        else:
            found = onnx_zoo.image_rivals(module, images, threads)
            rivals += [r for r in found if settings.target == HOST or r.name != ONNX_RUNTIME]
            if settings.target != HOST:
                missing.append(f"{ONNX_RUNTIME} is left out: it cannot be held to {settings.target}")
    model = cnnc.compile(net, batch, threads, state, settings.target)
    results = model(images)
    entrants = (_entrant(rival, results) for rival in rivals)
    return contest(title, lambda: model(images), entrants, missing, threads, settings)


def _entrant(rival: ImageRival, ours: Array) -> Entrant:
    def enter() -> tuple[Call, float]:
        run: Callable[[], Array] = rival.make()
        return run, agree(rival.name, {"output": run()}, {"output": ours}, LIMIT)

    return Entrant(rival.name, enter)
