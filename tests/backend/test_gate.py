"""Gates: a wait ends when, and only when, the gate has opened, whether the waiter is awake or asleep."""

from __future__ import annotations

import ctypes
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from cnnc.backend.gate import LINE_BYTES, PTHREAD_BYTES, SPINS, gate_ir
from tests.native import Native, compile_ir, parse_for
from tests.toy import CC, needs_cc

EXPORTS = """
define i32 @make(ptr %gate) {
  %error = call i32 @net.make_gate(ptr %gate)
  ret i32 %error
}
define void @drop(ptr %gate) {
  call void @net.drop_gate(ptr %gate)
  ret void
}
define void @open(ptr %gate) {
  call void @net.open(ptr %gate)
  ret void
}
define i32 @wait(ptr %gate, i32 %seen) {
  %now = call i32 @net.wait(ptr %gate, i32 %seen)
  ret i32 %now
}
"""
LAST_GENERATION = 0xFFFFFFFE


@dataclass(frozen=True)
class Gate:
    """A gate in memory of its own."""

    native: Native
    memory: ctypes.Array[ctypes.c_uint64]

    @property
    def word(self) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_buffer(self.memory)

    def make(self) -> int:
        return int(self.native.function("make", ctypes.c_int, ctypes.c_void_p)(self.memory))

    def drop(self) -> None:
        self.native.function("drop", None, ctypes.c_void_p)(self.memory)

    def open(self) -> None:
        self.native.function("open", None, ctypes.c_void_p)(self.memory)

    def wait(self, seen: int) -> int:
        wait = self.native.function("wait", ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)
        return int(wait(self.memory, seen))


@pytest.fixture(scope="module", params=[0, 50, SPINS], ids=["asleep", "impatient", "default"])
def native(request: pytest.FixtureRequest) -> Native:
    return compile_ir(gate_ir("net", spins=request.param) + EXPORTS)


@pytest.fixture
def gates(native: Native) -> Iterator[tuple[Gate, Gate]]:
    size = 2 * LINE_BYTES // 8
    pair = Gate(native, (ctypes.c_uint64 * size)()), Gate(native, (ctypes.c_uint64 * size)())
    assert [gate.make() for gate in pair] == [0, 0]
    yield pair
    for gate in pair:
        gate.drop()


def test_an_open_gate_is_passed_at_once(gates: tuple[Gate, Gate]) -> None:
    gate, _ = gates
    gate.open()
    assert gate.wait(0) == 2
    gate.open()
    gate.open()
    assert gate.wait(2) == 6


@pytest.mark.parametrize("waiters", [1, 3])
@pytest.mark.parametrize("first", [0, LAST_GENERATION])
def test_waits_until_opened(gates: tuple[Gate, Gate], waiters: int, first: int) -> None:
    gate, _ = gates
    gate.word.value = first
    passed: list[int] = []
    threads = [
        threading.Thread(target=lambda: passed.append(gate.wait(first)), daemon=True) for _ in range(waiters)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while gate.word.value == first and time.monotonic() < deadline:
        time.sleep(0.001)
    assert gate.word.value == first + 1, "somebody sleeps"
    assert passed == []
    gate.open()
    for thread in threads:
        thread.join(10)
    second = (first + 2) % 2**32
    assert passed == [second] * waiters
    assert gate.word.value == second


def test_two_threads_take_turns(gates: tuple[Gate, Gate]) -> None:
    there, back = gates
    turns = 2000

    def answer() -> None:
        for turn in range(turns):
            assert there.wait(2 * turn) == 2 * turn + 2
            back.open()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    for turn in range(turns):
        there.open()
        assert back.wait(2 * turn) == 2 * turn + 2
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "triple", ["x86_64-unknown-linux-gnu", "arm64-apple-macos", "i686-unknown-linux-gnu"]
)
def test_fills_whole_cache_lines(triple: str) -> None:
    llvm.initialize_all_targets()
    machine = llvm.Target.from_triple(triple).create_target_machine()
    module = parse_for(machine, gate_ir("net") + "@model = external global %net.gate")
    gate = module.get_global_variable("model").global_value_type
    data = machine.target_data
    assert [data.get_element_offset(gate, index) for index in (0, 2, 3)] == [0, LINE_BYTES, 192]
    assert data.get_abi_size(gate) == 2 * LINE_BYTES


@needs_cc
def test_this_system_fits_the_room(tmp_path: Path) -> None:
    source = tmp_path / "size.c"
    kinds = ("pthread_mutex_t", "pthread_cond_t")
    claims = [f'_Static_assert(sizeof({kind}) <= {PTHREAD_BYTES}, "{kind}");\n' for kind in kinds]
    source.write_text(f"#include <pthread.h>\n{''.join(claims)}")
    command = [str(CC), "-std=c11", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
