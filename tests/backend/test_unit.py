"""A unit: as one module for every target, as cached objects here, with nothing visible but its own names."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest

from cnnc.backend.cache import ObjectCache
from cnnc.backend.llvm import CodeGenerator, Jit, host
from cnnc.backend.objects import object_maker
from cnnc.backend.target import TARGETS, Target
from cnnc.backend.unit import Unit
from cnnc.ir.types import Array
from cnnc.params import aligned_block, unpack_params
from cnnc.source import Source, source_of
from cnnc.units import CompiledUnit, training_unit
from tests.native_kernels import on_runnable_targets
from tests.small_networks import classifier


def compiled(target: Target) -> CompiledUnit:
    return training_unit(source(), 2, target)


def source() -> Source:
    return source_of(classifier())


def objects(unit: Unit, cache: ObjectCache) -> tuple[bytes, ...]:
    with object_maker(unit.target, cache) as maker:
        return unit.objects(maker)


def call(jit: Jit, name: str, *arrays: Array) -> None:
    types = [ctypes.c_void_p] * len(arrays)
    ctypes.CFUNCTYPE(None, *types)(jit.address(name))(*(a.ctypes.data for a in arrays))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_one_module_for_every_target(target: Target, tmp_path: Path) -> None:
    """Machine code and assembly, with and without params; only names of the unit can be seen."""
    unit = compiled(target).unit
    params = tmp_path / "params"
    params.write_bytes(b"12345678")
    generator = CodeGenerator(target)
    assert generator.object_code(unit.module_ir())[:4] == b"\x7fELF"
    text = generator.assembly(unit.module_ir((str(params), 8)))
    visible = set(re.findall(r"\.globl\t?\s*(\S+)", text))
    names = ("step", "evaluate", "pack", "unpack", "params", "supported", "pool_create", "pool_destroy")
    assert visible == {f"{unit.name}_{name}" for name in names}


def test_built_in_params_need_no_file_once_the_object_is_made(tmp_path: Path) -> None:
    unit = compiled(host()).unit
    params = tmp_path / "params"
    params.write_bytes(b"12345678")
    code = CodeGenerator(host()).object_code(unit.module_ir((str(params), 8)))
    params.unlink()
    assert b"12345678" in code


@on_runnable_targets
def test_packing_there_and_back(target: Target) -> None:
    """`pack` makes the block that Python makes, `unpack` the weights that Python reads from it."""
    made = compiled(target)
    weights = source().initial_weights(3)
    concatenated = np.concatenate([weights[p.name].reshape(-1) for p in source().graph.params])
    jit, plan = Jit(target, objects(made.unit, ObjectCache(None))), made.main.plan
    block, back = aligned_block(plan.param_bytes), np.zeros_like(concatenated)
    call(jit, f"{made.unit.name}_pack", concatenated, block, aligned_block(made.workspace_bytes))
    for name, array in unpack_params(plan, block, source().graph.params).items():
        np.testing.assert_array_equal(array, weights[name])
    call(jit, f"{made.unit.name}_unpack", block, back)
    np.testing.assert_array_equal(back, concatenated)
    np.testing.assert_array_equal(block, made.prepared(weights))


def test_a_second_load_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit, cache = compiled(host()).unit, ObjectCache(tmp_path)
    objects(unit, cache)
    assert len(list(tmp_path.iterdir())) == len(unit.kernels) + 1
    monkeypatch.setattr(CodeGenerator, "object_code", lambda *_: pytest.fail("compiled again"))
    assert len(objects(unit, cache)) == len(unit.kernels) + 1


def test_targets_do_not_share_cached_objects(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    for name in ("x86-64", "avx2"):
        unit = compiled(TARGETS[name]).unit
        before = len(list(tmp_path.iterdir()))
        if TARGETS[name].triple == host().triple:
            objects(unit, cache)
            assert len(list(tmp_path.iterdir())) > before


@pytest.mark.parametrize("batch", [1, 2])
def test_equal_graphs_give_equal_text(batch: int) -> None:
    """So that the cache is hit in another process too."""
    first, second = (training_unit(source(), batch, host()).unit.module_ir() for _ in range(2))
    assert first == second
