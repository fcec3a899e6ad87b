"""The test of the CPU: true here for targets that run here, and compilable for all."""

from __future__ import annotations

import ctypes

import pytest

from cnnc.backend.cpu import LEAF_1_ECX, LEAF_7_EBX, supported_ir
from cnnc.backend.llvm import CodeGenerator, Jit, has_assembler, host, host_features
from cnnc.backend.target import TARGETS, Target
from tests.native_kernels import on_runnable_targets


def answer(text: str, target: Target) -> int:
    jit = Jit(target, [CodeGenerator(target).object_code(text)])
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(jit.address("net_supported"))())


@on_runnable_targets
def test_targets_of_this_machine_are_supported(target: Target) -> None:
    assert answer(supported_ir("net_supported", target), target) == 1


@pytest.mark.skipif(not has_assembler(TARGETS["avx2"]), reason="cpuid is an instruction of x86")
def test_the_answer_is_what_llvm_says_of_each_feature() -> None:
    has = host_features()
    for feature in (*LEAF_1_ECX, *LEAF_7_EBX):
        alone = Target("one", TARGETS["x86-64"].triple, "x86-64", (feature,), lanes=4, registers=16)
        assert answer(supported_ir("net_supported", alone), TARGETS["x86-64"]) == int(feature in has), feature


@pytest.mark.skipif(not has_assembler(TARGETS["avx2"]), reason="cpuid is an instruction of x86")
@pytest.mark.parametrize(
    ("has", "lacks"), [("i32 %most, 7", "i32 %most, 4096"), ("%all1,", "false,"), ("%all2,", "false,")]
)
def test_each_step_can_say_no(has: str, lacks: str) -> None:
    text = supported_ir("net_supported", host())
    assert text.count(has) == 1
    assert answer(text.replace(has, lacks), host()) == 0


@pytest.mark.skipif(not has_assembler(TARGETS["avx512"]), reason="cpuid is an instruction of x86")
@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_it_uses_no_instruction_it_asks_for(name: str) -> None:
    """The same bytes as for plain x86-64."""
    text = supported_ir("net_supported", TARGETS[name])
    plain = CodeGenerator(TARGETS["x86-64"]).assembly(text)
    assert CodeGenerator(TARGETS[name]).assembly(text) == plain


@pytest.mark.parametrize("name", ["x86-64", "arm64"])
def test_architectures_without_options_are_always_supported(name: str) -> None:
    target = TARGETS[name]
    text = supported_ir("net_supported", target)
    assert "cpuid" not in text
    assert len(CodeGenerator(target).object_code(text)) > 100
