"""Entries as LLVM IR text: what forks, where buffers lie, and built-in params."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from pathlib import Path

import pytest

from cnnc.backend.entry import declarations, entry_ir, params_from_file, params_in_text, unpack_ir
from cnnc.backend.kernel.ir import Access, Buffer
from cnnc.backend.kernel.nest import iterations
from cnnc.backend.llvm import CodeGenerator, Jit, host
from cnnc.backend.lower import Program, lower
from cnnc.backend.target import TARGETS
from cnnc.errors import UnsupportedError
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.types import f32
from cnnc.ops.conv import Conv2d
from cnnc.ops.elementwise import Relu
from cnnc.pipeline import compile_graph


def program(fork_flops: int) -> Program:
    b = GraphBuilder("net")
    x, w = b.input("x", f32(2, 3, 6, 6)), b.param("w", f32(8, 3, 3, 3))
    graph = b.build([b.emit(Relu(), b.emit(Conv2d(), x, w))])
    target = replace(TARGETS["avx2"], fork_flops=fork_flops)
    return compile_graph(graph, (), target).program


def test_only_work_worth_it_forks() -> None:
    work = [call.flops if iterations(call.kernel) > 1 else -1 for call in program(0).calls]
    for fork_flops in (0, max(work), max(work) + 1):
        text = entry_ir("net_run", "net", program(fork_flops))
        assert text.count("@net_parallel(ptr %pool") == sum(flops >= fork_flops for flops in work)
        assert text.count("i64 0, i64 ") == sum(flops < fork_flops for flops in work)


def test_an_entry_takes_every_port_and_the_three_blocks() -> None:
    text = entry_ir("net_run", "net", program(10**9))
    wanted = "define void @net_run(ptr %in0, ptr %out0, ptr %params, ptr %workspace, ptr %pool) nounwind {"
    assert text.startswith(wanted)
    bases = re.findall(r"getelementptr i8, ptr (%\w+),", text)
    assert {"%in0", "%out0", "%params", "%workspace"} == set(bases)


def test_a_program_of_any_batch_is_told_the_number_of_images_and_forks_for_enough() -> None:
    whole = lower(program(10**9).plan, program(0).target, 2)
    work = max(call.flops for call in whole.calls)
    for fork_flops, forks in ((work // 2, "ptr %pool"), (work, "ptr %pool"), (work + 1, None)):
        eager = replace(whole, target=replace(whole.target, fork_flops=fork_flops))
        text = entry_ir("net_run", "net", eager)
        assert text.startswith("define void @net_run(i64 %given, ptr %in0, ptr %out0, ptr %params,")
        assert text.count("i64 %images") >= len(whole.calls)
        assert ("@net_parallel(ptr %pool" in text) == (forks is not None)
        assert ("ptr %pool, ptr null" in text) == (fork_flops == work)
    fixed = entry_ir("net_step", "net", program(0))
    assert "%images" not in fixed and "%given" not in fixed


def test_a_program_without_calls_is_an_empty_function() -> None:
    empty = replace(program(0), calls=())
    assert entry_ir("net_run", "net", empty).splitlines()[-3:] == [
        f"  %scratch = getelementptr i8, ptr %workspace, i64 {empty.scratch_offset}",
        "  ret void",
        "}",
    ]
    assert unpack_ir("net_unpack", ()).endswith("{\n  ret void\n}\n")


@pytest.mark.parametrize("fork_flops", [0, 10**9])
def test_scratch_memory_lies_behind_the_arena(fork_flops: int) -> None:
    whole = program(fork_flops)
    assert whole.scratch_bytes == 0
    assert whole.workspace_bytes == whole.plan.arena_bytes
    first, *others = whole.calls
    scratch = Buffer("s", "f32", (3, 50), Access.SCRATCH)
    kernel = replace(first.kernel, buffers=(*first.kernel.buffers, scratch))
    whole = replace(whole, calls=(replace(first, kernel=kernel), *others))
    assert whole.scratch_bytes == 640
    assert whole.scratch_offset % 64 == 0
    assert 0 <= whole.scratch_offset - whole.plan.arena_bytes < 64
    assert whole.workspace_bytes == whole.scratch_offset + 640
    text = entry_ir("net_run", "net", whole)
    assert f"%scratch = getelementptr i8, ptr %workspace, i64 {whole.scratch_offset}\n" in text
    assert text.count("ptr %scratch)") == len(whole.calls)


def test_kernels_are_declared_once() -> None:
    calls = program(0).calls
    lines = declarations([*calls, *calls]).splitlines()
    assert len(lines) == len(set(lines)) == 2 * len({call.kernel for call in calls})


@pytest.mark.parametrize("content", [b"", b"\x00", bytes(range(256)) * 3], ids=len)
def test_built_in_params_are_the_files_bytes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'a "quoted" \\ name, déjà vu'
    path.write_bytes(content)
    for text in (
        params_from_file("net_params", str(path), len(content)),
        params_in_text("net_params", content),
    ):
        known = "" if "@net_params = " in text else "@net_params = external constant i8\n"
        module = f"{text}{known}define ptr @where() {{\n  ret ptr @net_params\n}}\n"
        jit = Jit(host(), [CodeGenerator(host()).object_code(module)])
        address = ctypes.CFUNCTYPE(ctypes.c_void_p)(jit.address("where"))()
        assert address % 64 == 0
        assert ctypes.string_at(address, len(content)) == content


def test_assembly_text_of_another_machine_is_refused_and_does_not_end_the_process(tmp_path: Path) -> None:
    foreign = TARGETS["arm64" if host().name != "arm64" else "avx2"]
    text = params_from_file("net_params", str(tmp_path / "params"), 0)
    for emit in (CodeGenerator(foreign).object_code, CodeGenerator(foreign).assembly):
        with pytest.raises(UnsupportedError, match=f"no assembler for {foreign.name}"):
            emit(text)
