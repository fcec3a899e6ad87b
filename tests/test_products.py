"""Products: what is inside them, what is not, and what this machine cannot make."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnc import SGD, Network, UnsupportedError, dense, softmax_cross_entropy
from cnnc.backend.target import TARGETS
from cnnc.compiler import compile, find_target
from cnnc.passes.choose_algorithms import Preferences
from cnnc.passes.set_batch import SetBatch
from cnnc.products import Emit, build_product
from cnnc.source import source_of
from cnnc.units import CompiledUnit, inference_unit, training_unit
from tests.native_kernels import RUNNABLE
from tests.program_runner import assert_close, exact
from tests.small_networks import digits, mixed, shaken
from tests.toy import needs_cc


def network() -> Network:
    net = Network("two.way", optimizer=SGD(lr=0.1, momentum=0.5))
    net.output(dense(net.input(5), 2, name="d"))
    net.loss(softmax_cross_entropy)
    return net


def unit(target: str = "host") -> CompiledUnit:
    return inference_unit(source_of(network()), 1, find_target(target))


@needs_cc
def test_a_shared_library_computes_what_the_model_computes(tmp_path: Path) -> None:
    net, compiled = network(), unit()
    weights = net.initial_weights(seed=3)
    product = build_product(compiled, Emit.SHARED, tmp_path / "lib.so", weights)
    assert (product.header, product.nbytes) == (tmp_path / "two_way.h", product.path.stat().st_size)
    library = ctypes.CDLL(str(product.path))
    params = ctypes.c_ubyte.in_dll(library, "two_way_params")
    packed = compiled.prepared(weights)
    assert ctypes.string_at(ctypes.addressof(params), packed.nbytes) == packed.tobytes()
    x, y = np.arange(5, dtype=np.float32), np.zeros(2, np.float32)
    workspace = np.zeros(compiled.workspace_bytes + 64, np.uint8)
    pointers = [x.ctypes.data, y.ctypes.data, ctypes.addressof(params), -(-workspace.ctypes.data // 64) * 64]
    library.two_way_run(ctypes.c_int64(1), *map(ctypes.c_void_p, pointers), None)
    np.testing.assert_array_equal(y, compile(net, weights=weights, cache=False)(x[None])[0])


@needs_cc
@pytest.mark.parametrize("target", RUNNABLE)
def test_programs_compute_what_the_reference_does(target: str, tmp_path: Path) -> None:
    """For every processor that this one can stand for; the same bits on any number of threads."""
    source, (images, _) = source_of(mixed()), digits(4)
    weights = shaken(source.initial_weights())
    eager = replace(TARGETS[target], fork_flops=0)
    compiled = inference_unit(source, 4, eager, Preferences(forced="winograd"))
    build_product(compiled, Emit.PROGRAM, tmp_path / "program", weights)
    np.save(tmp_path / "in.npy", images)
    results = []
    for threads in (1, 2, 3):
        arguments = ["in.npy", "out.npy", f"--threads={threads}"]
        subprocess.run([tmp_path / "program", *arguments], cwd=tmp_path, check=True)
        results.append(np.load(tmp_path / "out.npy"))
    graph = SetBatch(4)(source.graph)
    expected = exact(graph, {source.inputs[0].name: images}, weights)
    assert_close(results[0], expected.outputs[graph.outputs[0].name])
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


@pytest.mark.parametrize("target", TARGETS)
def test_objects_are_made_for_every_target(target: str, tmp_path: Path) -> None:
    net, compiled = network(), unit(target)
    product = build_product(compiled, Emit.OBJECT, tmp_path / "o.o", net.initial_weights(seed=3))
    packed = compiled.prepared(net.initial_weights(seed=3))
    assert packed.tobytes() in product.path.read_bytes()
    assert "two_way_params" in (tmp_path / "two_way.h").read_text()


def test_weights_outside(tmp_path: Path) -> None:
    product = build_product(unit(), Emit.OBJECT, tmp_path / "o.o", None)
    assert b"two_way_params" not in product.path.read_bytes()
    assert product.header is not None and "two_way_params" not in product.header.read_text()


@pytest.mark.parametrize("emit", [Emit.LLVM, Emit.ASM])
def test_text_holds_no_weights(emit: Emit, tmp_path: Path) -> None:
    product = build_product(unit(), emit, tmp_path / "t", network().initial_weights())
    text = product.path.read_text()
    assert "two_way_pack" in text and "two_way_params" not in text
    assert product.header is None


def test_training_has_step_and_evaluate_and_its_state_inside(tmp_path: Path) -> None:
    net = network()
    compiled = training_unit(source_of(net), 4, find_target("host"))
    product = build_product(compiled, Emit.OBJECT, tmp_path / "o.o", net.initial_weights())
    header = (tmp_path / "two_way.h").read_text()
    assert "two_way_step(" in header and "two_way_evaluate(" in header
    assert product.nbytes > compiled.main.plan.param_bytes
    with pytest.raises(UnsupportedError, match="starts from weights and optimizer state inside"):
        build_product(compiled, Emit.OBJECT, tmp_path / "p.o", None)


def test_foreign_programs_are_refused_before_anything_is_compiled(tmp_path: Path) -> None:
    foreign = "x86-64" if find_target("host").name == "arm64" else "arm64"
    for emit in (Emit.PROGRAM, Emit.SHARED):
        with pytest.raises(UnsupportedError, match="use --emit static, object, llvm or asm"):
            build_product(unit(foreign), emit, tmp_path / "x", {})
    assert list(tmp_path.iterdir()) == []
