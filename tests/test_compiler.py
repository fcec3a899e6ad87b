"""The front door: compiled networks against the references in float64, threads, batches, mistakes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from cnnc.backend.cache import ObjectCache
from cnnc.backend.kernel.nest import iterations
from cnnc.backend.llvm import host
from cnnc.backend.target import TARGETS, Target
from cnnc.backend.unit import Unit
from cnnc.compiler import compile, compile_training, find_target
from cnnc.errors import CnncError, FormatError, ShapeError, UnsupportedError
from cnnc.frontend.activations import relu
from cnnc.frontend.layers import conv2d
from cnnc.frontend.network import Network
from cnnc.frontend.weights import save_weights
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph
from cnnc.ir.op import Trait
from cnnc.ir.parser import parse_graph
from cnnc.ir.printer import print_graph
from cnnc.ir.types import Array, f32
from cnnc.model import Model
from cnnc.native import Code, Native, address
from cnnc.ops import OPS
from cnnc.ops.elementwise import Relu
from cnnc.ops.winograd import WinogradConv2d, WinogradWeights
from cnnc.params import pack_params
from cnnc.passes.differentiate import gradient_graph
from cnnc.pipeline import Compilation, compile_graph, inference_passes
from cnnc.source import source_of
from cnnc.units import inference_unit
from tests.native_kernels import on_runnable_targets
from tests.nets import draw, lenet5, residual, tiny_lenet
from tests.program_runner import assert_close, exact
from tests.small_networks import classifier, digits, regression
from tests.strategies import graphs

FORKING = replace(host(), fork_flops=0)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ObjectCache:
    """Kernels of this run of the tests, away from the user's."""
    return ObjectCache(tmp_path_factory.mktemp("cache"))


def run_compiled(
    compilation: Compilation, feeds: dict[str, Array], target: Target, cache: ObjectCache, threads: int = 1
) -> list[Array]:
    """The outputs of a graph that may have any inputs and outputs, called as C would call it."""
    plan = compilation.plan
    unit = Unit("net", target, (("run", compilation.program),))
    native = Native(Code.of(unit, compilation.program.workspace_bytes, cache), threads)
    inputs = [np.ascontiguousarray(feeds[v.name], v.type.numpy) for v in plan.graph.inputs]
    outputs = [np.full(v.type.shape, np.nan, v.type.numpy) for v in plan.graph.outputs]
    params = pack_params(plan, {p.name: feeds[p.name] for p in plan.graph.params})
    run = native.function("run", len(inputs) + len(outputs) + 3)
    run(*map(address, [*inputs, *outputs]), address(params), address(native.workspace), native.pool)
    return outputs


def check_compiled(graph: Graph, target: Target, cache: ObjectCache, tolerance: float = 1e-4) -> None:
    """The compiled graph's outputs are the reference's, for one thread and for two, bit for bit the same."""
    batch = graph.inputs[0].type.shape[0]
    compilation = compile_graph(graph, inference_passes(batch), target)
    inputs, params = draw(graph.inputs, 1), draw(graph.params, 2)
    expected = exact(graph, inputs, params)
    feeds = {**inputs, **params}
    found = run_compiled(compilation, feeds, target, cache)
    for value, array in zip(graph.outputs, found, strict=True):
        assert_close(array, expected.outputs[value.name], tolerance, value.name)
    for again in (run_compiled(compilation, feeds, target, cache, threads) for threads in (1, 2)):
        for first, second in zip(found, again, strict=True):
            np.testing.assert_array_equal(first.view(np.uint32), second.view(np.uint32))


@given(graph=graphs(regions=False))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_graphs(graph: Graph, cache: ObjectCache) -> None:
    check_compiled(replace(graph, updates=()), FORKING, cache)


@on_runnable_targets
@pytest.mark.parametrize("make", [lenet5, tiny_lenet, residual])
def test_networks(make: Callable[[int], Graph], target: Target, cache: ObjectCache) -> None:
    check_compiled(make(2), replace(target, fork_flops=0), cache)


@on_runnable_targets
def test_threads_do_not_share_scratch_memory(target: Target, cache: ObjectCache) -> None:
    """Two Winograd convolutions, one behind the other, of several iterations each."""
    b = GraphBuilder("net")
    weights, op = WinogradWeights((4, 4)), WinogradConv2d((4, 4), (3, 3), (1, 1, 1, 1))
    u, v = (b.emit(weights, b.param(n, f32(*w, 3, 3))) for n, w in (("u", (48, 24)), ("v", (40, 48))))
    y = b.emit(op, b.input("x", f32(2, 24, 30, 30)), u)
    graph = b.build([b.emit(op, b.emit(Relu(), y), v)])
    program = compile_graph(graph, inference_passes(2), target).program
    assert program.scratch_bytes and all(iterations(k) > 1 for k in program.kernels if k.scratch_bytes)
    check_compiled(graph, replace(target, fork_flops=0), cache)


@on_runnable_targets
@pytest.mark.parametrize("make", [tiny_lenet, residual])
def test_gradients_by_everything(make: Callable[[int], Graph], target: Target, cache: ObjectCache) -> None:
    """By every param, every input that has a gradient, and every value in between."""
    graph = make(3)
    inner = [node.result.name for node in graph.nodes if not node.op.has(Trait.VIEW)][:-1]
    floats = [v.name for v in (*graph.inputs, *graph.params) if v.type.dtype == "f32"]
    names = [n for n in [*floats, *inner] if n != "target" and graph.values[n] not in graph.outputs]
    check_compiled(gradient_graph(graph, names), replace(target, fork_flops=0), cache, tolerance=1e-3)


def model_of(threads: int = 1, batch: int = 4, target: Target | None = None) -> Model:
    """The regression network, which has one input, without a cache."""
    source = source_of(regression())
    compiled = inference_unit(source, batch, target or host())
    native = Native(Code.of(compiled.unit, compiled.workspace_bytes, ObjectCache(None)), threads)
    return Model(compiled.interface(False), source.weights(None), native)


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of()


def images(count: int) -> Array:
    return np.random.default_rng(count).standard_normal((count, 2, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 11])
def test_any_number_of_rows(rows: int, model: Model) -> None:
    """Each row's result is what it is alone, whatever the batch it was computed in."""
    x = images(rows)
    found = model(x)
    assert found.shape == (rows, 4)
    source = source_of(regression())
    expected = exact(source.graph, {"image": x[:1]}, source.weights(None))
    assert_close(found[:1], next(iter(expected.outputs.values())))
    for row in range(rows):
        np.testing.assert_array_equal(model(x[row : row + 1])[0], found[row])
    (by_name,) = model.run({"image": x}).values()
    np.testing.assert_array_equal(by_name, found)


def test_results_are_the_callers_own(model: Model) -> None:
    x = images(4)
    first = model(x)
    kept = first.copy()
    model(x * 2)
    np.testing.assert_array_equal(first, kept)


def test_inputs_of_other_number_types_and_orders(model: Model) -> None:
    x = images(4)
    expected = model(x)
    np.testing.assert_array_equal(model(x.astype(np.float64)), expected)
    np.testing.assert_array_equal(model(np.asfortranarray(x)), expected)
    np.testing.assert_array_equal(model(np.repeat(x, 2, axis=0)[::2]), expected)
    np.testing.assert_array_equal(
        model((x * 8).astype(np.int8)), model((x * 8).astype(np.int8).astype(np.float32))
    )


def test_misfits_are_named(model: Model) -> None:
    for x, shape in (
        (images(4)[:, :1], r"\(4, 1, 8, 8\)"),
        (images(1)[0], r"\(2, 8, 8\)"),
        (images(0), r"\(0, "),
    ):
        with pytest.raises(
            ShapeError, match=rf"input image of regression has shape {shape}.*; it must be \(n,2,8,8\)"
        ):
            model(x)
    with pytest.raises(ShapeError, match="regression takes the inputs image; got picture"):
        model.run({"picture": images(1)})
    with pytest.raises(ShapeError, match="regression takes the inputs image; got none"):
        model.run({})


def test_threads_give_the_same_bits() -> None:
    x = images(4)
    one, two, three = (model_of(threads, target=FORKING)(x) for threads in (1, 2, 3))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, three)


def test_one_model_may_be_called_from_many_threads(model: Model) -> None:
    inputs = [images(n) for n in range(1, 9)]
    expected, found = [model(x) for x in inputs], [np.zeros(())] * len(inputs)

    def work(number: int) -> None:
        for _ in range(20):
            found[number] = model(inputs[number])

    workers = [threading.Thread(target=work, args=(n,)) for n in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_models_with_threads_may_go_at_any_time() -> None:
    for _ in range(3):
        model = model_of(threads=2, target=FORKING)
        function = model(images(1))
        del model
        gc.collect()
    assert np.isfinite(function).all()


def test_a_text_graph_compiles() -> None:
    """Parsed at batch 2, run at batch 3; two inputs, two outputs."""
    text = """
    graph @pair(%a: f32[2,3,4,4], %b: f32[2,2,4,4]; @w: f32[2,3,1,1]) -> (%sum, %c) {
      %c: f32[2,2,4,4] = conv2d(%a, @w) {stride=(1,1), pad=(0,0,0,0), dilation=(1,1), groups=1}
      %sum: f32[2,2,4,4] = add(%c, %b)
    }
    """
    graph = parse_graph(text, OPS, "pair.txt")
    assert parse_graph(print_graph(graph), OPS) == graph
    weights = {"w": np.random.default_rng(0).standard_normal((2, 3, 1, 1)).astype(np.float32)}
    model = compile(graph, batch=3, weights=weights, cache=False)
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((5, c, 4, 4)).astype(np.float32) for c in (3, 2))
    found = model.run({"b": b, "a": a})
    assert list(found) == ["sum", "c"]
    expected = np.einsum("nchw,oc->nohw", a.astype(np.float64), weights["w"][:, :, 0, 0])
    assert_close(found["c"], expected)
    assert_close(found["sum"], expected + b)
    with pytest.raises(ShapeError, match=r"use run\(\{name: array\}\)"):
        model(a)
    with pytest.raises(ShapeError, match=r"different numbers of rows \(a: 5, b: 4\)"):
        model.run({"a": a, "b": b[:4]})


def test_graphs_a_model_cannot_serve_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"labels is i32\[2\]"):
        compile(tiny_lenet(), cache=False)
    with pytest.raises(CnncError, match="text graph, which has no loss"):
        compile_training(source_of(tiny_lenet()), cache=False)


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_weights_from_a_file(suffix: str, tmp_path: Path) -> None:
    net, path = classifier(), tmp_path / f"w.{suffix}"
    weights = net.initial_weights(7)
    save_weights(path, weights)
    x, _ = digits(2)
    expected = compile(net, weights=weights, cache=False)(x)
    for given_path in (path, str(path)):
        np.testing.assert_array_equal(compile(net, weights=given_path, cache=False)(x), expected)
    assert (compile(net, cache=False)(x) != expected).any()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match=path.name):
        compile(net, weights=path, cache=False)
    del weights["dense_1.bias"]
    with pytest.raises(FormatError, match=r"no dense_1\.bias"):
        compile(net, weights=weights, cache=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be a positive whole number, not 0"),
        ({"batch": 1.5}, "batch must be a positive whole number, not 1.5"),
        ({"threads": 0}, "threads must be a positive whole number, not 0"),
        ({"threads": 1.5}, "threads must be a positive whole number, not 1.5"),
        ({"threads": 100_000}, "cannot start 100000 threads"),
        ({"target": "avx1024"}, "unknown target 'avx1024'"),
        ({"target": "arm64" if host().name != "arm64" else "avx2"}, "does not run on this machine"),
    ],
)
def test_mistakes_give_one_line(options: dict[str, int], message: str) -> None:
    for door in (compile, compile_training):
        with pytest.raises(CnncError, match=message) as caught:
            door(classifier(), cache=False, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_the_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x, _ = digits(1)
    first = compile(classifier())(x)
    entries = sorted(tmp_path.rglob("*.o"))
    assert entries and all(entry.parent == tmp_path / "cnnc" for entry in entries)
    np.testing.assert_array_equal(compile(classifier())(x), first)
    assert sorted(tmp_path.rglob("*.o")) == entries


def test_find_target() -> None:
    assert find_target("host") == host()
    assert find_target("avx2") is TARGETS["avx2"]


def test_code_for_any_number_of_threads_gives_the_same_bits() -> None:
    """Kernels divide their work to suit the threads; what is added up, and in which order, stays."""
    net = Network("threads")
    x = net.input(32, 19, 19)
    for _ in range(2):
        x = conv2d(x, 64, 3, pad="same", activation=relu)
    net.output(x)
    image = np.random.default_rng(0).standard_normal((1, 32, 19, 19), np.float32)
    first, *others = (compile(net, threads=threads)(image) for threads in (1, 2, 3, 7))
    for other in others:
        np.testing.assert_array_equal(first, other)
