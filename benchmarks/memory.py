"""Memory: the planned arena of every network beside its lower bound, and the peak of a built program beside
that of a process that runs the same network in ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import optional
from benchmarks.compile_time import STEP_BATCH
from benchmarks.image import ONNX
from benchmarks.report import Cell, Report
from benchmarks.zoo import BY_NAME, Entry, calibration_images, sample
from cnnc.backend import llvm
from cnnc.frontend.data import save_npy
from cnnc.products import Emit, build_product
from cnnc.source import source_of
from cnnc.units import inference_unit, training_unit

PROGRAM = "resnet50"
"""The network of the built program."""

ONNX_RUN = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
numpy.save(sys.argv[3], session.run(None, {"image": numpy.load(sys.argv[2])})[0])
"""

PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def arenas(entries: Sequence[Entry]) -> Report:
    """Of inference of one image and of a training step, in megabytes."""
    rows: list[tuple[Cell, ...]] = []
    for entry in entries:
        source = source_of(entry.declare(entry.size))
        step = entry.step_batch or STEP_BATCH
        for what, batch, made in (("inference", 1, inference_unit), ("training", step, training_unit)):
            plan = made(source, batch, llvm.host()).main.plan
            used, bound = plan.arena_bytes, plan.live_bytes_bound
            rows.append((f"{entry.title}, {what}", float(batch), used / 1e6, bound / 1e6, used / bound))
    worst = max(float(row[-1] or 0) for row in rows)
    headers = ("network", "batch", "arena MB", "most bytes alive MB", "ratio")
    return Report("arenas", "Planned memory", headers, tuple(rows), {"worst ratio": worst})


def peak_memory() -> Report:
    """The largest resident sets of whole processes that compute one image, weights and all."""
    entry = BY_NAME[PROGRAM]
    title = f"Peak resident memory, {entry.title}, one image"
    torch_zoo, onnx_zoo = optional.find("torch_zoo", "torch"), optional.find("onnx_zoo", *ONNX)
    if torch_zoo is None or onnx_zoo is None:
        return Report("memory", title, ("process", "MB"), (), notes=(optional.missing("ONNX Runtime"),))
    net = entry.declare(entry.size)
    module = torch_zoo.module(entry, entry.size, calibration_images(net))
    images, _ = sample(net, 1)
    with tempfile.TemporaryDirectory() as folder:
        program, image, model = (str(Path(folder) / name) for name in ("program", "image.npy", "model.onnx"))
        save_npy(image, images)
        Path(model).write_bytes(onnx_zoo.exported(module, images))
        build_product(
            inference_unit(source_of(net), 1, llvm.host()), Emit.PROGRAM, program, torch_zoo.weights(module)
        )
        ours = _peak([program, image, f"{folder}/ours.npy"])
        theirs = _peak([sys.executable, "-c", ONNX_RUN, model, image, f"{folder}/theirs.npy"])
    rows = (("built program", ours / 1e6), ("ONNX Runtime in Python", theirs / 1e6))
    return Report("memory", title, ("process", "MB"), rows, {"peak ratio": theirs / ours})


def _peak(command: list[str]) -> int:
    """Bytes of the largest resident set of a process that must succeed. A small process starts it, for at
    first it counts what its parent has."""
    launched = subprocess.run([sys.executable, "-c", PEAK, *command], check=True, capture_output=True)
    return int(launched.stdout.split()[-1]) * 1024
