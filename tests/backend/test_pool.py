"""The fork-join pool: every index once, results seen, threads that wake, rest, and are gone in the end."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from cnnc.backend.gate import LINE_BYTES, SPINS
from cnnc.backend.pool import MAX_THREADS, POOL_FIELDS, pool_ir
from cnnc.ir.types import Array
from tests.native import Native, compile_ir, parse_for

COUNTS = (0, 1, 2, 3, 5, 7, 8, 64, 1000)
THREADS = (1, 2, 3, 4, 7)

TASKS = """
; Calls parallel from outside of the module.
define void @fork(ptr %pool, ptr %task, ptr %args, i64 %count, i64 %images, ptr %scratch) {
  call void @net_parallel(ptr %pool, ptr %task, ptr %args, i64 %count, i64 %images, ptr %scratch)
  ret void
}

; A task: writes the end of its range to args[begin], and counts its calls in args[-1].
define void @mark(ptr %args, i64 %begin, i64 %end, i64 %images, ptr %scratch) {
  %calls = getelementptr i64, ptr %args, i64 -1
  %before = atomicrmw add ptr %calls, i64 1 monotonic
  %cell = getelementptr i64, ptr %args, i64 %begin
  store i64 %end, ptr %cell
  ret void
}

; A task of as many iterations as there are threads: waits until all have come, so that each thread has one,
; counting them in args[-1], then writes where its scratch memory is to args[begin], after filling its first
; and last cell of 1000. `images` is the number of threads.
define void @occupy(ptr %args, i64 %begin, i64 %end, i64 %images, ptr %scratch) {
entry:
  %come = getelementptr i64, ptr %args, i64 -1
  %before = atomicrmw add ptr %come, i64 1 monotonic
  br label %look

look:
  %here = load atomic i64, ptr %come monotonic, align 8
  %is_complete = icmp eq i64 %here, %images
  br i1 %is_complete, label %fill, label %look

fill:
  %last = getelementptr i8, ptr %scratch, i64 996
  store i32 1, ptr %scratch
  store i32 1, ptr %last
  %cell = getelementptr ptr, ptr %args, i64 %begin
  store ptr %scratch, ptr %cell
  ret void
}

; A task: writes the number of images to args[begin .. end - 1].
define void @tell(ptr %args, i64 %begin, i64 %end, i64 %images, ptr %scratch) {
entry:
  br label %cell

cell:
  %index = phi i64 [ %begin, %entry ], [ %next, %cell ]
  %next = add i64 %index, 1
  %at = getelementptr i64, ptr %args, i64 %index
  store i64 %images, ptr %at
  %is_left = icmp ult i64 %next, %end
  br i1 %is_left, label %cell, label %done

done:
  ret void
}

; A task: the range with iteration 0 waits until all others are done. They are counted in args[0]; `images` is
; how many there are.
define void @hinder(ptr %args, i64 %begin, i64 %end, i64 %images, ptr %scratch) {
entry:
  %size = sub i64 %end, %begin
  %before = atomicrmw add ptr %args, i64 %size monotonic
  %is_first = icmp eq i64 %begin, 0
  br i1 %is_first, label %look, label %done

look:
  %counted = load atomic i64, ptr %args monotonic, align 8
  %is_complete = icmp eq i64 %counted, %images
  br i1 %is_complete, label %done, label %look

done:
  ret void
}

; A task on a ring of args.count cells: target[i] = source[i + 1] + 1.
%ring = type { ptr, ptr, i64 }
define void @turn(ptr %args, i64 %begin, i64 %end, i64 %images, ptr %scratch) {
entry:
  %target_at = getelementptr %ring, ptr %args, i32 0, i32 1
  %count_at = getelementptr %ring, ptr %args, i32 0, i32 2
  %source = load ptr, ptr %args
  %target = load ptr, ptr %target_at
  %count = load i64, ptr %count_at
  br label %cell

cell:
  %index = phi i64 [ %begin, %entry ], [ %next, %cell ]
  %next = add i64 %index, 1
  %neighbour = urem i64 %next, %count
  %from = getelementptr i32, ptr %source, i64 %neighbour
  %to = getelementptr i32, ptr %target, i64 %index
  %old = load i32, ptr %from
  %new = add i32 %old, 1
  store i32 %new, ptr %to
  %is_left = icmp ult i64 %next, %end
  br i1 %is_left, label %cell, label %done

done:
  ret void
}

; Forks `turn` the given times, source and target changing places.
define void @spin_ring(ptr %pool, ptr %args, i64 %times) {
entry:
  %target_at = getelementptr %ring, ptr %args, i32 0, i32 1
  %count_at = getelementptr %ring, ptr %args, i32 0, i32 2
  %count = load i64, ptr %count_at
  br label %round

round:
  %index = phi i64 [ 0, %entry ], [ %next, %round ]
  call void @net_parallel(ptr %pool, ptr @turn, ptr %args, i64 %count, i64 0, ptr null)
  %source = load ptr, ptr %args
  %target = load ptr, ptr %target_at
  store ptr %target, ptr %args
  store ptr %source, ptr %target_at
  %next = add i64 %index, 1
  %is_left = icmp ult i64 %next, %times
  br i1 %is_left, label %round, label %done

done:
  ret void
}
"""

SCARCE = """
@threads_left = global i32 0

; As pthread_create, but EAGAIN once threads_left are started.
define internal i32 @scarce_create(ptr %thread, ptr %attributes, ptr %start, ptr %args) {
  %left = load i32, ptr @threads_left
  %fewer = sub i32 %left, 1
  store i32 %fewer, ptr @threads_left
  %is_left = icmp sgt i32 %left, 0
  br i1 %is_left, label %create, label %refuse

create:
  %error = call i32 @pthread_create(ptr %thread, ptr %attributes, ptr %start, ptr %args)
  ret i32 %error

refuse:
  ret i32 11
}

define internal i32 @no_memory(ptr %result, i64 %alignment, i64 %size) {
  ret i32 12
}
"""


class Ring(ctypes.Structure):
    """Arguments of the task `turn`."""

    _fields_ = (("source", ctypes.c_void_p), ("target", ctypes.c_void_p), ("count", ctypes.c_int64))


@dataclass(frozen=True)
class Code:
    """The compiled pool with the tasks above."""

    native: Native

    def create(self, threads: int) -> int | None:
        create = self.native.function("net_pool_create", ctypes.c_void_p, ctypes.c_int)
        pool: int | None = create(threads)
        return pool

    def destroy(self, pool: int | None) -> None:
        self.native.function("net_pool_destroy", None, ctypes.c_void_p)(pool)

    @contextmanager
    def pool(self, threads: int) -> Iterator[int]:
        pool = self.create(threads)
        assert pool is not None
        yield pool
        self.destroy(pool)

    def chunks(self, pool: int | None, count: int) -> list[tuple[int, int]]:
        """The ranges that the tasks of one fork are called with, in order."""
        cells = np.full(count + 2, -1, np.int64)
        cells[0] = 0
        call = (ctypes.c_void_p,) * 3
        fork = self.native.function("fork", None, *call, *[ctypes.c_int64] * 2, ctypes.c_void_p)
        fork(pool, self.native.address("mark"), cells[1:].ctypes.data, count, 0, None)
        ranges = [(begin, int(end)) for begin, end in enumerate(cells[1:]) if end >= 0]
        assert cells[0] == len(ranges), "two tasks had the same range"
        return ranges

    def ring(self, pool: int | None, count: int, times: int) -> Array:
        """A ring of zeros after that many turns."""
        source, target = np.zeros(count, np.int32), np.zeros(count, np.int32)
        args = Ring(source.ctypes.data, target.ctypes.data, count)
        spin = self.native.function("spin_ring", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        spin(pool, ctypes.byref(args), times)
        return source if args.source == source.ctypes.data else target


@pytest.fixture(scope="module")
def code() -> Code:
    return Code(compile_ir(pool_ir("net") + TASKS))


@pytest.fixture(scope="module", params=[0, 50, SPINS], ids=["asleep", "impatient", "default"])
def any_code(request: pytest.FixtureRequest) -> Code:
    """Pools whose threads sleep at once, after a short while, and as they really do."""
    return Code(compile_ir(pool_ir("net", spins=request.param) + TASKS))


def covers(chunks: list[tuple[int, int]], count: int) -> bool:
    """Whether the ranges are 0..count, each iteration once, and none is empty."""
    edges = [0, *(end for _, end in chunks)]
    return edges[-1] == count and all(
        begin == edge < end for edge, (begin, end) in zip(edges, chunks, strict=False)
    )


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """The result of the work, which must come in time; a hang fails the test and not the whole run."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, f"failed or still running after {seconds} s"
    return results[0]


def threads_of_process() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")


def settles_at(threads: int) -> bool:
    """Whether the process has that many threads; a joined thread may stay listed for a moment."""
    deadline = time.monotonic() + 5
    while threads_of_process() != threads and time.monotonic() < deadline:
        time.sleep(0.001)
    return threads_of_process() == threads


@pytest.mark.parametrize("threads", THREADS)
def test_every_index_is_visited_once(any_code: Code, threads: int) -> None:
    with any_code.pool(threads) as pool:
        for count in COUNTS:
            chunks = within(10, partial(any_code.chunks, pool, count))
            assert covers(chunks, count) if threads > 1 else chunks == [(0, count)]


@pytest.mark.parametrize("threads", THREADS[1:])
def test_what_a_hindered_thread_has_not_begun_is_done_by_others(any_code: Code, threads: int) -> None:
    """Each thread has four iterations, of which it takes one at a time."""
    count, done = 4 * threads, np.zeros(1, np.int64)
    fork = any_code.native.function(
        "fork", None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2, ctypes.c_void_p
    )
    with any_code.pool(threads) as pool:
        hinder = any_code.native.address("hinder")
        within(20, partial(fork, pool, hinder, done.ctypes.data, count, count, None))
    assert done[0] == count


@pytest.mark.parametrize("count", COUNTS)
def test_no_pool_is_one_plain_call(code: Code, count: int) -> None:
    assert code.chunks(None, count) == [(0, count)]


@pytest.mark.parametrize("threads", THREADS)
def test_thousands_of_forks_see_each_others_results(any_code: Code, threads: int) -> None:
    times = 2000
    with any_code.pool(threads) as pool:
        cells = within(60, lambda: any_code.ring(pool, 23, times))
    np.testing.assert_array_equal(cells, times)


@pytest.mark.parametrize("threads", THREADS)
def test_every_thread_has_scratch_memory_of_its_own(threads: int) -> None:
    code = Code(compile_ir(pool_ir("net", scratch_bytes=1000) + TASKS))
    counted, own = np.zeros(threads + 1, np.int64), np.zeros(250, np.int32)
    cells = counted[1:]
    call = (ctypes.c_void_p,) * 3
    fork = code.native.function("fork", None, *call, *[ctypes.c_int64] * 2, ctypes.c_void_p)
    with code.pool(threads) as pool:
        for _ in range(3):
            counted[0] = 0
            args = (code.native.address("occupy"), cells.ctypes.data, threads, threads, own.ctypes.data)
            within(10, partial(fork, pool, *args))
            assert own.ctypes.data in cells, "the caller's is what it gave"
            assert (own[0], own[-1]) == (1, 1)
            others = np.sort(cells[cells != own.ctypes.data])
            assert len(others) == threads - 1
            assert not (others % LINE_BYTES).any()
            assert (np.diff(others) >= 1000).all()
            assert abs(others - pool).max(initial=0) < LINE_BYTES * (10 + 11 * threads)


@pytest.mark.parametrize("threads", [None, *THREADS])
def test_every_task_is_told_the_number_of_images(code: Code, threads: int | None) -> None:
    count = threads or 1
    cells = np.zeros(count, np.int64)
    fork = code.native.function("fork", None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2, ctypes.c_void_p)
    with code.pool(threads) if threads else nullcontext() as pool:
        for images in (1, 5, 2**40):
            tell = code.native.address("tell")
            within(10, partial(fork, pool, tell, cells.ctypes.data, count, images, None))
            np.testing.assert_array_equal(cells, images)


def test_two_pools_at_once(any_code: Code) -> None:
    times = 2000
    with any_code.pool(2) as left, any_code.pool(3) as right:
        results: list[Array] = []
        other = threading.Thread(target=lambda: results.append(any_code.ring(left, 9, times)), daemon=True)
        other.start()
        np.testing.assert_array_equal(within(60, lambda: any_code.ring(right, 11, times)), times)
        other.join(60)
        np.testing.assert_array_equal(results, [[times] * 9])


def test_a_pool_serves_one_thread_after_another(code: Code) -> None:
    with code.pool(3) as pool:
        for _ in range(20):
            assert covers(within(10, lambda: code.chunks(pool, 5)), 5)


@pytest.mark.parametrize("threads", [2, 5])
def test_sleeping_workers_wake(code: Code, threads: int) -> None:
    with code.pool(threads) as pool:
        for _ in range(5):
            time.sleep(0.05)
            assert covers(within(10, lambda: code.chunks(pool, 100)), 100)


def test_idle_workers_use_no_processor(code: Code) -> None:
    with code.pool(4) as pool:
        code.ring(pool, 8, 100)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1


@needs_proc
def test_destroy_ends_the_workers(code: Code) -> None:
    before = threads_of_process()
    for pause in (0, 0.001):
        with code.pool(6) as pool:
            assert threads_of_process() == before + 5
            code.ring(pool, 12, 50)
            time.sleep(pause)
        assert settles_at(before)


def test_destroy_at_any_moment_returns(any_code: Code) -> None:
    def lives() -> int:
        for life in range(200):
            with any_code.pool(1 + life % 4) as pool:
                if life % 3:
                    any_code.ring(pool, 5, life % 3)
        return life

    assert within(60, lives) == 199


def test_destroying_no_pool_does_nothing(code: Code) -> None:
    code.destroy(None)


@pytest.mark.parametrize("threads", [0, -1, -(2**31), MAX_THREADS + 1, 2**31 - 1])
def test_senseless_thread_numbers_give_no_pool(code: Code, threads: int) -> None:
    assert code.create(threads) is None


@needs_proc
@pytest.mark.parametrize("available", [0, 1, 3])
def test_threads_that_did_start_end_when_one_cannot(available: int) -> None:
    text = pool_ir("net").replace("call i32 @pthread_create(", "call i32 @scarce_create(")
    native = compile_ir(text + SCARCE + TASKS)
    left = ctypes.c_int.from_address(int(native.engine.get_global_value_address("threads_left")))
    scarce = Code(native)
    before = threads_of_process()
    left.value = available
    assert scarce.create(available + 2) is None
    assert left.value == -1
    assert settles_at(before)
    left.value = available
    with scarce.pool(available + 1) as pool:
        assert covers(scarce.chunks(pool, 9), 9)


def test_no_memory_gives_no_pool() -> None:
    text = pool_ir("net").replace("call i32 @posix_memalign(", "call i32 @no_memory(")
    assert Code(compile_ir(text + SCARCE + TASKS)).create(2) is None


@pytest.mark.parametrize(
    ("triple", "bits"),
    [
        ("x86_64-unknown-linux-gnu", 64),
        ("x86_64-apple-macos", 64),
        ("aarch64-unknown-linux-gnu", 64),
        ("arm64-apple-macos", 64),
        ("i686-unknown-linux-gnu", 32),
        ("armv7-unknown-linux-gnueabihf", 32),
    ],
)
def test_compiles_for_other_machines(triple: str, bits: int) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=2, reloc="pic", codemodel="default")
    module = parse_for(machine, pool_ir("net", bits) + TASKS + "@model = external global %net.pool")
    assert len(machine.emit_object(module)) > 1000
    pool = module.get_global_variable("model").global_value_type
    names = [name for name, _ in POOL_FIELDS]
    shared = [names.index(name) for name in ("start", "done", "pending", "threads")]
    offsets = [machine.target_data.get_element_offset(pool, index) // LINE_BYTES for index in shared]
    assert offsets == [0, 2, 4, 5], "each on a cache line of its own"


def test_only_the_c_functions_are_visible() -> None:
    module = llvm.parse_assembly(pool_ir("net"))
    visible = [f.name for f in module.functions if not f.is_declaration and f.linkage.name == "external"]
    assert visible == ["net_pool_create", "net_pool_destroy"]


@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two processors")
def test_forks_take_microseconds(code: Code) -> None:
    """Two threads that are awake fork and join fast, unless other programs have their processors."""

    def seconds() -> float:
        with code.pool(2) as pool:
            code.ring(pool, 2, 100)
            begin = time.perf_counter()
            code.ring(pool, 2, 100)
            return (time.perf_counter() - begin) / 100

    assert any(seconds() < 20e-6 for _ in range(200))
